// Package guest is the program that the kit runs in containers: the kit's own
// executable, which takes this part when it is started with [Env].
package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Env is the environment variable by which the program knows that it is the guest.
const Env = "DAVIT_KIT_GUEST"

// Out is the directory in the container to which the guest writes files.
const Out = "/out"

// TermCode is the exit code of those that SIGTERM ends in an orderly way.
const TermCode = 42

// The roles, which are the guest's first argument.
const (
	Exit   = "exit"   // ends at once with the code that follows
	Wait   = "wait"   // says "ready", "hangup" to each SIGHUP and "terminated" to SIGTERM, at which it ends with TermCode
	Family = "family" // Wait with as many children, which do the same, as follow
	Echo   = "echo"   // writes "to stdout" and "to stderr" where they say
	Spew   = "spew"   // writes as many lines of 100 bytes as follow
	Cat    = "cat"    // repeats its standard input and says "end" at its end
	Size   = "size"   // says the size of its terminal, and again when it changes
	Count  = "count"  // counts in the file "count" of Out for ever
	Spin   = "spin"   // uses a processor for as many milliseconds as follow
	Eat    = "eat"    // takes memory for ever
	Look   = "look"   // writes a View as JSON
)

// View is what a process sees of its container.
type View struct {
	PID, UID, GID int
	Groups        []int
	Dir, Hostname string
	Env           []string
	Root          []string // names in /
}

// Called says whether the program was started as the guest.
func Called() bool { return os.Getenv(Env) != "" }

// Main takes the part that the arguments name, and answers the exit code.
func Main(args []string) int {
	var role, text string
	if len(args) > 1 {
		role = args[1]
	}
	if len(args) > 2 {
		text = args[2]
	}
	var number int
	var err error
	if text != "" {
		number, err = strconv.Atoi(text)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 125
	}
	switch role {
	case Exit:
		return number
	case Wait:
		return wait()
	case Family:
		for range number {
			child := exec.CommandContext(context.Background(), "/proc/self/exe", Wait)
			child.Stdout, child.Stderr = os.Stdout, os.Stderr
			err = errors.Join(err, child.Start())
		}
		if err == nil {
			return wait()
		}
	case Echo:
		fmt.Println("to stdout")
		fmt.Fprintln(os.Stderr, "to stderr")
	case Spew:
		for i := range number {
			fmt.Printf("%-99d\n", i)
		}
	case Cat:
		if _, err = io.Copy(os.Stdout, os.Stdin); err == nil {
			fmt.Println("end")
		}
	case Size:
		err = size()
	case Count:
		err = count()
	case Spin:
		for begun := time.Now(); time.Since(begun) < time.Duration(number)*time.Millisecond; {
		}
	case Eat:
		eat()
	case Look:
		err = look()
	default:
		err = fmt.Errorf("no role %q", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 125
	}
	return 0
}

func wait() int {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGTERM, unix.SIGHUP)
	fmt.Println("ready")
	for s := range signals {
		if s == unix.SIGTERM {
			break
		}
		fmt.Println("hangup")
	}
	fmt.Println("terminated")
	return TermCode
}

func size() error {
	changed := make(chan os.Signal, 16)
	signal.Notify(changed, unix.SIGWINCH)
	for {
		w, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
		if err != nil {
			return err
		}
		fmt.Printf("%dx%d\n", w.Col, w.Row)
		<-changed
	}
}

func count() error {
	f, err := os.Create(Out + "/count")
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		if _, err := f.WriteAt(fmt.Appendf(nil, "%09d", i), 0); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// eat keeps what it takes, and writes to each page so that it is there.
func eat() {
	var all [][]byte
	for {
		b := make([]byte, 4<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		all = append(all, b)
		if len(all) > 1<<16 {
			return
		}
	}
}

func look() error {
	v := View{PID: os.Getpid(), UID: syscall.Getuid(), GID: syscall.Getgid(), Env: os.Environ()}
	var err error
	if v.Groups, err = syscall.Getgroups(); err != nil {
		return err
	}
	if v.Dir, err = os.Getwd(); err != nil {
		return err
	}
	if v.Hostname, err = os.Hostname(); err != nil {
		return err
	}
	entries, err := os.ReadDir("/")
	for _, entry := range entries {
		v.Root = append(v.Root, strings.TrimSuffix(entry.Name(), "/"))
	}
	return errors.Join(err, json.NewEncoder(os.Stdout).Encode(v))
}
