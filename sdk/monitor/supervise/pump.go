package supervise

import (
	"encoding/binary"
	"errors"
	"os"
	"time"
)

const (
	headerSize = 8         // of Docker's stream frames
	least      = 4 << 10   // read at once from a process that writes little
	most       = 256 << 10 // read at once from one that writes much; also the pipe's size
	// quiet is after how long without output a large buffer is given back.
	quiet = 500 * time.Millisecond
)

// pump moves one output to the log and to every client, until its end.
func (s *streams) pump(r *os.File, name string, frame byte) {
	defer func() {
		if r != s.terminal {
			_ = r.Close()
		}
	}()
	split := &splitter{log: s.log, stream: name}
	var targets []*client
	var flowing bool
	buffer := make([]byte, headerSize+least)
	for {
		if len(buffer) > headerSize+least {
			targets = s.targets(targets[:0], frame)
			if flowing = s.forward(r, frame, targets, flowing); flowing {
				continue
			}
		}
		n, err := r.Read(buffer[headerSize:])
		if n > 0 {
			split.write(buffer[headerSize:headerSize+n], time.Now())
			buffer[0] = frame
			binary.BigEndian.PutUint32(buffer[4:], uint32(n))
			message := buffer[:headerSize+n]
			if s.config.Terminal {
				message = buffer[headerSize : headerSize+n]
			}
			targets = s.targets(targets[:0], frame)
			for _, c := range targets {
				if !c.write(message) {
					s.forget(c)
				}
			}
		}
		large := len(buffer) > headerSize+least
		switch {
		case err == nil && large && n <= least: // the deadline comes
		case err == nil && n >= least:
			if !large {
				buffer = make([]byte, headerSize+most)
			}
			_ = r.SetReadDeadline(time.Now().Add(quiet))
		case errors.Is(err, os.ErrDeadlineExceeded):
			_ = r.SetReadDeadline(time.Time{})
			buffer = make([]byte, headerSize+least)
			s.log.release()
			collect()
		case err != nil: // EOF, or EIO of a terminal nobody has open any more
			split.close(time.Now())
			return
		}
	}
}

// targets lists the clients of one output.
func (s *streams) targets(list []*client, frame byte) []*client {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.clients {
		if frame == 1 && c.stdout || frame == 2 && c.stderr {
			list = append(list, c)
		}
	}
	return list
}
