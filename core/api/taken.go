package api

import (
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// headTaken is how long a client has to read the head of an answer whose
// connection is handed over. One that does not read has nothing to lose.
const headTaken = time.Second

// afterHead writes to a taken-over connection, the first time only after the
// client has read the head of the answer. Clients that read the head through a
// buffer and the stream past it (Docker's SDK for Python) would lose what arrives
// together with the head.
type afterHead struct {
	net.Conn
	once sync.Once
}

func (a *afterHead) Write(p []byte) (int, error) {
	a.once.Do(func() { awaitReader(a.Conn, headTaken) })
	return a.Conn.Write(p)
}

// awaitReader returns when the peer has read everything that was written, or
// after limit. Only unix sockets tell; others are not waited for.
func awaitReader(conn net.Conn, limit time.Duration) {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return
	}
	deadline := time.Now().Add(limit)
	for delay := 20 * time.Microsecond; time.Now().Before(deadline); delay = min(2*delay, 2*time.Millisecond) {
		if unread, err := outstanding(raw); err != nil || unread == 0 {
			return
		}
		time.Sleep(delay)
	}
}

// outstanding is how much of what was written the peer has not read (SIOCOUTQ,
// unix(7)).
func outstanding(raw syscall.RawConn) (n int, err error) {
	failed := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	if failed != nil {
		return 0, failed
	}
	return n, err
}
