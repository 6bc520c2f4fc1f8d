package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/monitor/launch"
)

const (
	// lateOutput is how long output may come after the last process of a container
	// has ended, from something outside that still holds the pipes.
	lateOutput = 2 * time.Second
	// farewell is how long clients may take to receive what is theirs when the
	// monitor ends.
	farewell = 10 * time.Second
)

// server is a monitor at work.
type server struct {
	config Config
	reaper *reaper
	log    *logFile
	init   *process
	pidfd  int
	oom    oomWatch
	trace  *monitor.Trace // of the creation; nil unless one is wanted

	mu    sync.Mutex
	execs map[string]*process // nil while it is made

	poststart sync.Once

	connections sync.WaitGroup
	idle        *time.Timer
}

// Main runs a monitor until its container has ended. It answers the exit code
// of the monitor's own process.
func Main() int {
	saveMemory()
	survive()
	// Not for the container.
	unix.CloseOnExec(ControlFD)
	control := os.NewFile(ControlFD, "control")
	warmUp()
	config, err := receive(control)
	if errors.Is(err, io.EOF) {
		return 0 // nobody wants this monitor any more
	}
	var s *server
	var ended <-chan unix.WaitStatus
	if err == nil {
		s, ended, err = begin(config)
	}
	if err != nil {
		_ = monitor.WriteMessage(control, monitor.Response{Error: monitor.AsFailure(err)})
		return 1
	}
	listener, err := monitor.Listen(filepath.Join(s.config.Dir, monitor.SocketName))
	if err != nil {
		_ = s.init.signal(int(unix.SIGKILL))
		_ = monitor.WriteMessage(control, monitor.Response{Error: monitor.AsFailure(fmt.Errorf("listening: %w", err))})
		return 1
	}
	s.trace.Done("monitor: listening")
	_ = monitor.WriteMessage(control, monitor.Response{State: monitor.StateCreated, PID: s.init.pid, Trace: s.trace})
	_ = control.Close()
	s.trace = nil
	s.idle = whenIdle()
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		s.accept(listener)
	}()
	s.waitInit(<-ended)
	_ = listener.Close()
	<-accepting
	_ = os.Remove(filepath.Join(s.config.Dir, monitor.SocketName))
	s.waitConnections()
	return 0
}

// warmUp has package json prepare itself for the messages: it does so once for
// every type, which takes longer than the messages, and a monitor that waits has
// the time.
func warmUp() {
	_ = json.Unmarshal([]byte(`{"birth":{},"streams":{"log":{}},"hooks":{},"listener":{}}`), &Config{})
	_ = json.Unmarshal([]byte(`{"streams":{}}`), &monitor.Request{})
	_, _ = json.Marshal(monitor.Response{})
}

// receive waits for the order to make a container and takes its name.
func receive(control io.Reader) (Config, error) {
	var config Config
	if err := monitor.ReadMessage(control, &config); err != nil {
		return config, fmt.Errorf("reading the configuration: %w", err)
	}
	title(config.ID)
	complaints, err := unix.Open(filepath.Join(config.Dir, ComplaintsName), unix.O_CREAT|unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return config, fmt.Errorf("opening %s: %w", ComplaintsName, err)
	}
	defer func() { _ = unix.Close(complaints) }()
	for _, fd := range []int{1, 2} {
		if err := unix.Dup3(complaints, fd, 0); err != nil {
			return config, fmt.Errorf("redirecting descriptor %d: %w", fd, err)
		}
	}
	return config, nil
}

func begin(config Config) (*server, <-chan unix.WaitStatus, error) {
	s := &server{config: config, execs: map[string]*process{}}
	if config.Trace {
		s.trace = &monitor.Trace{}
	}
	s.trace.Done("monitor: reading the configuration")
	// Processes of a container without a pid namespace of its own come to us when
	// their parent dies.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, nil, err
	}
	var err error
	s.reaper = newReaper()
	if s.log, err = openLog(s.config.Streams.Log, s.reaper.start); err != nil {
		return nil, nil, fmt.Errorf("opening the log: %w", err)
	}
	s.oom = newOOMWatch(s.config.OOMFile)
	s.trace.Done("monitor: log and signals")
	init, ended, err := s.makeInit()
	if err != nil {
		return nil, nil, err
	}
	s.init = init
	// The configuration is not needed again; execs bring their own.
	s.config.Stage, s.config.Restore = nil, nil
	if s.pidfd, err = unix.PidfdOpen(init.pid, 0); err != nil {
		_ = init.signal(int(unix.SIGKILL))
		return nil, nil, err
	}
	return s, ended, nil
}

func (s *server) makeInit() (*process, <-chan unix.WaitStatus, error) {
	exitPath := filepath.Join(s.config.Dir, monitor.ExitName)
	switch {
	case s.config.Restore != nil:
		return s.restore(exitPath)
	case s.config.Foreign != nil:
		return s.createForeign(exitPath)
	}
	stage := launch.Stage{Name: launch.InitName, Config: s.config.Stage, Birth: s.config.Birth, Flags: s.config.CloneFlags, Join: s.config.JoinPaths,
		CgroupFiles: s.config.CgroupFiles, CgroupDir: s.config.CgroupDir, Hooks: s.createHooks, Listener: s.config.Listener}
	return create(s.reaper, stage, s.config.Streams, s.log, exitPath, s.trace)
}

// waitInit acts on the end of the container's init.
func (s *server) waitInit(status unix.WaitStatus) {
	s.init.finish(status, s.oom.killed(exitCode(status)))
	s.init.streams.end(lateOutput)
	s.log.end()
	close(s.init.drained)
	// With the pid namespace its other processes are dead, too; their ends arrive.
	s.mu.Lock()
	execs := make([]*process, 0, len(s.execs))
	for _, p := range s.execs {
		if p != nil {
			execs = append(execs, p)
		}
	}
	s.mu.Unlock()
	for _, p := range execs {
		p.giveUp()
		select {
		case <-p.drained:
		case <-time.After(lateOutput):
		}
	}
}

func (s *server) waitConnections() {
	done := make(chan struct{})
	go func() {
		s.connections.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(farewell):
	}
}

func (s *server) accept(listener *net.UnixListener) {
	for {
		conn, err := listener.AcceptUnix()
		if err != nil {
			if acceptAgain(err) {
				continue
			}
			return
		}
		s.connections.Go(func() {
			defer s.idle.Reset(idleAfter)
			defer func() { _ = conn.Close() }()
			s.serve(conn)
		})
	}
}

// serve answers the one request of a connection.
func (s *server) serve(conn *net.UnixConn) {
	var request monitor.Request
	if err := monitor.ReadMessage(conn, &request); err != nil {
		_ = monitor.WriteMessage(conn, monitor.Response{Error: monitor.Failf(monitor.KindInvalid, "reading the request: %v", err)})
		return
	}
	if request.Op == monitor.OpExec {
		response := s.exec(request)
		_ = monitor.WriteMessage(conn, response)
		return
	}
	p := s.process(request.Exec)
	if p == nil {
		_ = monitor.WriteMessage(conn, monitor.Response{Error: monitor.Failf(monitor.KindNotFound, "no such exec: %s", request.Exec)})
		return
	}
	if request.Op == monitor.OpAttach {
		if monitor.WriteMessage(conn, monitor.Response{PID: p.id()}) == nil {
			p.streams.attach(conn, request)
		}
		return
	}
	_ = monitor.WriteMessage(conn, s.operate(p, request))
}

func (s *server) process(exec string) *process {
	if exec == "" {
		return s.init
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.execs[exec]
}

func (s *server) operate(p *process, request monitor.Request) monitor.Response {
	var err error
	var description *monitor.Description
	switch request.Op {
	case monitor.OpStatus:
	case monitor.OpStart:
		if err = p.start(); err == nil && p == s.init {
			err = s.started()
		}
	case monitor.OpWait:
		// The exit status comes after the output: who waits may read the log at once.
		<-p.drained
	case monitor.OpSignal:
		err = p.signal(request.Signal)
	case monitor.OpResize:
		err = p.streams.resize(request.Width, request.Height)
	case monitor.OpCloseStdin:
		p.streams.closeStdin()
	case monitor.OpForget:
		err = s.forget(request.Exec, p)
	case monitor.OpDescribe:
		description = p.streams.describe()
		description.Execs = s.running()
	default:
		err = monitor.Failf(monitor.KindInvalid, "unknown operation %q", request.Op)
	}
	state, exit := p.status()
	return monitor.Response{Error: monitor.AsFailure(err), State: state, PID: p.id(), Exit: exit, Description: description}
}

// exec creates another process in the container.
func (s *server) exec(request monitor.Request) monitor.Response {
	if request.Exec == "" || request.Streams == nil {
		return monitor.Response{Error: monitor.Failf(monitor.KindInvalid, "an exec needs an ID and streams")}
	}
	if state, _ := s.init.status(); state != monitor.StateRunning {
		return monitor.Response{Error: monitor.Failf(monitor.KindPrecondition, "container is not running")}
	}
	s.mu.Lock()
	p, taken := s.execs[request.Exec]
	if !taken {
		s.execs[request.Exec] = nil // until it is made
	}
	s.mu.Unlock()
	if p != nil {
		if state, _ := p.status(); state == monitor.StateCreated { // asked again
			return monitor.Response{State: state, PID: p.id()}
		}
	}
	if taken {
		return monitor.Response{Error: monitor.Failf(monitor.KindExists, "exec %s exists", request.Exec)}
	}
	response := s.makeExec(request)
	if response.Error != nil {
		s.mu.Lock()
		delete(s.execs, request.Exec)
		s.mu.Unlock()
	}
	return response
}

func (s *server) makeExec(request monitor.Request) monitor.Response {
	exitPath := filepath.Join(s.config.Dir, monitor.ExecExitName(request.Exec))
	if s.config.Foreign != nil {
		return s.execForeign(request, exitPath)
	}
	stage := launch.Stage{Name: launch.ExecName, Config: request.Stage, Init: s.pidfd, CgroupFiles: request.CgroupFiles, CgroupDir: request.CgroupDir}
	if len(request.Birth) > 0 {
		if err := json.Unmarshal(request.Birth, &stage.Birth); err != nil {
			return monitor.Response{Error: monitor.Failf(monitor.KindInvalid, "reading how the process is born: %v", err)}
		}
	}
	if s.config.JoinPID && stage.Enter == 0 {
		stage.PIDNamespace = s.pidfd
	}
	stage.Listener = s.config.Listener.ForExec(s.init.pid)
	p, ended, err := create(s.reaper, stage, *request.Streams, nil, exitPath, nil)
	if err != nil {
		return monitor.Response{Error: monitor.AsFailure(err)}
	}
	return s.keep(request.Exec, p, func() unix.WaitStatus { return <-ended })
}

// keep waits for the end of an exec.
func (s *server) keep(id string, p *process, wait func() unix.WaitStatus) monitor.Response {
	s.mu.Lock()
	s.execs[id] = p
	s.mu.Unlock()
	s.connections.Go(func() {
		p.finish(wait(), false)
		select {
		case <-waitGroup(&p.streams.outputs):
		case <-s.init.ended:
		}
		p.streams.end(lateOutput)
		close(p.drained)
	})
	return monitor.Response{State: monitor.StateCreated, PID: p.id()}
}

func waitGroup(group *sync.WaitGroup) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	return done
}

func (s *server) forget(exec string, p *process) error {
	if state, _ := p.status(); exec == "" || state != monitor.StateExited {
		return monitor.Failf(monitor.KindPrecondition, "process has not ended")
	}
	s.mu.Lock()
	delete(s.execs, exec)
	s.mu.Unlock()
	_ = os.Remove(filepath.Join(s.config.Dir, monitor.ExecExitName(exec)))
	return nil
}
