package conformance

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/davit-engine/davit/sdk/conformance/guest"
	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/runtime"
)

// runtimeStreamChecks are those of a process's surroundings: what it sees, and where
// what it says goes.
func runtimeStreamChecks() []Check {
	return []Check{
		{Name: "runtime/spec", Rule: "A complete OCI config.json.", run: runtimeSpec},
		{Name: "runtime/rootfs", Rule: "The root filesystem, to be mounted in this order.", run: runtimeRootfs},
		{Name: "runtime/log", Rule: "Log says where the monitor writes output in Docker's json-file format.", run: runtimeLog},
		{Name: "runtime/log-rotation", Rule: "Bytes after which the file is rotated; 0 for never.", run: runtimeRotation},
		{Name: "runtime/attach", Rule: "Path of the socket of the monitor that holds its streams.", run: runtimeAttach},
		{Name: "runtime/stdin", Rule: "Standard input stays open for an attached client; otherwise /dev/null.", run: runtimeStdin},
		{Name: "runtime/stdin-once", Rule: "Standard input closes when the first attached client with stdin leaves.", run: runtimeStdinOnce},
		{Name: "runtime/close-stdin", Rule: "CloseStdin ends the standard input of a process.", run: runtimeCloseStdin},
		{Name: "runtime/terminal", Rule: "Resize sets the size of the terminal.", run: runtimeTerminal},
	}
}

// seen is what the guest, which had nothing else to do, saw.
func (b *box) seen(text string) (v guest.View) {
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		b.t.fatalf("the container should have said what it sees, and said %q (%v)", text, err)
	}
	return v
}

func runtimeSpec(t *T) {
	b := t.box("odd", guest.Look)
	b.spec.Hostname = "kit-host"
	p := b.spec.Process
	p.User.UID, p.User.GID, p.User.AdditionalGids = 1234, 5678, []uint32{77}
	p.Cwd, p.Env = guest.Out, append(p.Env, "KIT=yes, it is")
	p.Capabilities.Effective, p.Capabilities.Permitted, p.Capabilities.Bounding = nil, nil, nil
	b.create()
	b.start()
	b.ends(0, "a container that looks around")
	v := b.seen(b.output())
	if v.PID != 1 {
		t.errorf("in a pid namespace of its own it is process %d", v.PID)
	}
	if v.UID != 1234 || v.GID != 5678 || !slices.Contains(v.Groups, 77) {
		t.errorf("user 1234:5678 with group 77 is %d:%d with groups %v", v.UID, v.GID, v.Groups)
	}
	if v.Dir != guest.Out || v.Hostname != "kit-host" || !slices.Contains(v.Env, "KIT=yes, it is") {
		t.errorf("directory %s, host name %s, environment %q", v.Dir, v.Hostname, v.Env)
	}
	slices.Sort(v.Root)
	if want := []string{"data", "dev", "guest", "out", "proc", "sys"}; !slices.Equal(v.Root, want) {
		t.errorf("in / are %v, and not %v", v.Root, want)
	}
}

// runtimeRootfs mounts one directory over another.
func runtimeRootfs(t *T) {
	b := t.box("mounts", guest.Look)
	over := filepath.Join(b.dir, "over")
	t.must(os.Mkdir(over, 0o755), "making a directory")
	t.must(os.Mkdir(filepath.Join(b.dir, "rootfs/below"), 0o755), "making a directory")
	t.must(os.Mkdir(filepath.Join(over, "inside"), 0o755), "making a directory")
	b.ask.Rootfs = append(b.ask.Rootfs, mount.Mount{Type: "bind", Source: over, Target: "below", Options: []string{"rbind"}})
	b.spec.Process.Cwd = "/below/inside" // which is in the second mount only
	b.create()
	b.start()
	b.ends(0, "a container whose root filesystem has two mounts")
	if v := b.seen(b.output()); v.Dir != "/below/inside" || !slices.Contains(v.Root, "guest") {
		t.errorf("it sees %v in / and is in %s", v.Root, v.Dir)
	}
}

func runtimeLog(t *T) {
	b := t.started("talks", guest.Echo)
	b.wait()
	var said []string
	for _, entry := range b.logged() {
		said = append(said, entry.Stream+": "+entry.Log)
		if at, err := time.Parse(time.RFC3339Nano, entry.Time); err != nil || time.Since(at) > time.Hour {
			t.errorf("the time of an entry is %q", entry.Time)
		}
	}
	slices.Sort(said)
	if want := []string{"stderr: to stderr\n", "stdout: to stdout\n"}; !slices.Equal(said, want) {
		t.errorf("the log has %q, not %q", said, want)
	}
	quiet := t.box("quiet", guest.Echo)
	quiet.ask.IO.Log = nil
	quiet.create()
	quiet.start()
	quiet.ends(0, "a container without a log")
}

func runtimeRotation(t *T) {
	b := t.box("spews", guest.Spew, "300")
	b.ask.IO.Log.MaxSize, b.ask.IO.Log.MaxFile = 10000, 2
	b.create()
	b.start()
	b.ends(0, "a container with a small log")
	for suffix, want := range map[string]bool{"": true, ".1": true, ".2": false} {
		info, err := os.Stat(b.ask.IO.Log.Path + suffix)
		if (err == nil) != want {
			t.errorf("of a log with two files, the one with suffix %q: %v", suffix, err)
		}
		if err == nil && info.Size() > 10000 {
			t.errorf("the log's file with suffix %q has %d bytes", suffix, info.Size())
		}
	}
	if said := b.output(); !strings.Contains(said, "299 ") {
		t.errorf("the log's last line is not there: %q", said[max(0, len(said)-200):])
	}
}

// attached is a client of a process's streams.
type attached struct {
	t      *T
	stream *monitor.Stream
	raw    bool // from a terminal
}

func (t *T) attach(socket, execID string, stdin, raw bool) *attached {
	stream, err := monitor.Attach(t.ctx, socket, monitor.AttachOptions{ExecID: execID, Stdin: stdin, Stdout: true, Stderr: true})
	t.must(err, "attaching to %s", socket)
	t.cleanup(func() { _ = stream.Close() })
	stop := context.AfterFunc(t.ctx, func() { _ = stream.Close() })
	t.cleanup(func() { stop() })
	return &attached{t, stream, raw}
}

func (a *attached) write(text string) {
	_, err := io.WriteString(a.stream, text)
	a.t.must(err, "writing to a process")
}

// hears wants the process to say a text, after which nothing is read.
func (a *attached) hears(want string) {
	var all bytes.Buffer
	for !strings.Contains(strings.ReplaceAll(all.String(), "\r\n", "\n"), want) {
		if _, err := a.read(&all); err != nil {
			a.t.fatalf("an attached client should have heard %q, and heard %q (%v)", want, all.String(), err)
		}
	}
}

// read adds what comes next to what was heard and answers the stream that it is of.
func (a *attached) read(to *bytes.Buffer) (byte, error) {
	if a.raw {
		b := make([]byte, 1024)
		n, err := a.stream.Read(b)
		to.Write(b[:n])
		return 1, err
	}
	var head [8]byte
	if _, err := io.ReadFull(a.stream, head[:]); err != nil {
		return 0, err
	}
	_, err := io.CopyN(to, a.stream, int64(binary.BigEndian.Uint32(head[4:])))
	return head[0], err
}

func runtimeAttach(t *T) {
	b := t.box("talks", guest.Echo)
	a := t.attach(b.create().Socket, "", false, false)
	b.start()
	said := map[byte]*bytes.Buffer{1: {}, 2: {}}
	for {
		var one bytes.Buffer
		stream, err := a.read(&one)
		if errors.Is(err, io.EOF) {
			break
		}
		t.must(err, "reading what a process says")
		if said[stream] == nil {
			t.fatalf("stream %d says %q", stream, one.String())
		}
		said[stream].Write(one.Bytes())
	}
	if said[1].String() != "to stdout\n" || said[2].String() != "to stderr\n" {
		t.errorf("an attached client hears %q and %q", said[1], said[2])
	}
	b.ends(0, "a container that somebody attached to")
}

func runtimeStdin(t *T) {
	b := t.box("repeats", guest.Cat)
	b.ask.IO.Stdin = true
	socket := b.create().Socket
	first := t.attach(socket, "", true, false)
	b.start()
	first.write("hello\n")
	first.hears("hello\n")
	t.must(first.stream.Close(), "detaching")
	t.must(t.again(t.ctx), "killing and starting the plugin")
	next := t.attach(socket, "", true, false)
	next.write("again\n")
	next.hears("again\n")
	b.status(runtime.StatusRunning, "after a client has left")
	none := t.started("reads nothing", guest.Cat) // from /dev/null
	none.ends(0, "a container without standard input")
}

func runtimeStdinOnce(t *T) {
	b := t.box("repeats", guest.Cat)
	b.ask.IO.Stdin, b.ask.IO.StdinOnce = true, true
	a := t.attach(b.create().Socket, "", true, false)
	b.start()
	a.write("hello\n")
	t.must(a.stream.CloseWrite(), "ending standard input")
	if said := a.all(); said != "hello\nend\n" {
		t.errorf("an attached client hears %q", said)
	}
	b.ends(0, "a container whose standard input has ended")
}

func runtimeCloseStdin(t *T) {
	b := t.box("repeats", guest.Cat)
	b.ask.IO.Stdin = true
	b.create()
	b.start()
	b.status(runtime.StatusRunning, "with open standard input")
	for _, what := range []string{"CloseStdin", "CloseStdin again"} {
		if err := t.runtime().CloseStdin(t.ctx, b.id, ""); err != nil && what == "CloseStdin" {
			t.errorf("%s: %v", what, err)
		}
	}
	b.ends(0, "a container whose standard input was closed")
}

func runtimeTerminal(t *T) {
	b := t.box("terminal", guest.Size)
	b.spec.Process.Terminal, b.ask.IO.Terminal, b.ask.IO.Stdin = true, true, true
	b.ask.IO.Width, b.ask.IO.Height = 91, 33
	a := t.attach(b.create().Socket, "", true, true)
	b.start()
	a.hears("91x33\n")
	for _, size := range [][2]uint16{{100, 40}, {80, 24}} {
		t.must(t.runtime().Resize(t.ctx, b.id, "", size[0], size[1]), "Resize")
		a.hears(fmt.Sprintf("%dx%d\n", size[0], size[1]))
	}
	b.says("80x24", 1) // in the log, too
}

// all is what the process says until its end.
func (a *attached) all() string {
	var all bytes.Buffer
	for {
		if _, err := a.read(&all); errors.Is(err, io.EOF) {
			return all.String()
		} else if err != nil {
			a.t.fatalf("after %q: %v", all.String(), err)
		}
	}
}
