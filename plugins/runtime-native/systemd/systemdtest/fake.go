// Package systemdtest is a stand-in for systemd on a bus of its own: what the
// runtime asks of transient scopes, with real cgroups. Like systemd it removes a
// scope whose last process has ended.
package systemdtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
)

const (
	manager = "org.freedesktop.systemd1.Manager"
	object  = godbus.ObjectPath("/org/freedesktop/systemd1")
)

// Property is a property of a unit as D-Bus has it.
type Property struct {
	Name  string
	Value godbus.Variant
}

// Systemd is the stand-in.
type Systemd struct {
	// Address is that of its bus, for DBUS_SYSTEM_BUS_ADDRESS.
	Address string

	t    *testing.T
	conn *godbus.Conn
	mu   sync.Mutex // of what follows
	jobs uint32
	// units are the properties of those that are there, in the order they were set.
	units map[string][]Property
	// result is how the next jobs end; empty: "done".
	result  string
	silent  bool
	version string
	paths   map[string]bool // of all units that ever were
}

// Start starts a bus and the stand-in on it, until the end of the test. It skips the
// test where there is no dbus-daemon.
func Start(t *testing.T) *Systemd {
	t.Helper()
	daemon, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("no dbus-daemon here")
	}
	if os.Geteuid() != 0 {
		t.Skip("cgroups need root")
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "bus")
	config := filepath.Join(dir, "bus.conf")
	body := `<busconfig><type>session</type><listen>unix:path=` + socket + `</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`
	if err := os.WriteFile(config, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	bus := exec.CommandContext(context.WithoutCancel(t.Context()), daemon, "--config-file="+config, "--nofork", "--nopidfile", "--nosyslog")
	if err := bus.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = bus.Process.Kill()
		_ = bus.Wait()
	})
	s := &Systemd{Address: "unix:path=" + socket, t: t, units: map[string][]Property{}, paths: map[string]bool{}, version: "252.1-fake"}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if s.conn, err = godbus.Connect(s.Address); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = s.conn.Close() })
	for _, err := range []error{
		s.conn.Export(methods{s}, object, manager),
		s.conn.Export(values{s}, object, "org.freedesktop.DBus.Properties"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if reply, err := s.conn.RequestName("org.freedesktop.systemd1", godbus.NameFlagDoNotQueue); err != nil || reply != godbus.RequestNameReplyPrimaryOwner {
		t.Fatal(reply, err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go s.collect(stop, done)
	t.Cleanup(func() {
		close(stop)
		<-done
		s.sweep()
	})
	return s
}

// sweep removes all scopes, and slices without any.
func (s *Systemd) sweep() {
	for unit := range s.units {
		s.kill(unit)
		s.remove(unit)
	}
	for path := range s.paths {
		for ; path != "." && path != "/"; path = filepath.Dir(path) {
			_ = unix.Rmdir(filepath.Join("/sys/fs/cgroup", path))
			dirs, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup/*", path))
			for _, dir := range dirs {
				_ = unix.Rmdir(dir)
			}
		}
	}
}

// Environ is the environment of a program that is to find the stand-in.
func (s *Systemd) Environ() string { return "DBUS_SYSTEM_BUS_ADDRESS=" + s.Address }

// Fail has the next jobs end in another way than "done"; "silent" has them not end.
func (s *Systemd) Fail(result string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.result, s.silent = result, result == "silent"
}

// SetVersion is that which it says it has.
func (s *Systemd) SetVersion(version string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version = version
}

// Units are the names of those that are there.
func (s *Systemd) Units() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name := range s.units {
		names = append(names, name)
	}
	return names
}

// Get is the last value a unit's property was given, nil for none.
func (s *Systemd) Get(unit, property string) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	var value any
	for _, p := range s.units[unit] {
		if p.Name == property {
			value = p.Value.Value()
		}
	}
	return value
}

// hierarchies are the roots in which systemd makes cgroups: some on v1, among them
// the one without controllers where it counts processes.
func hierarchies() []string {
	const root = "/sys/fs/cgroup"
	if cgroup.Version() == 2 {
		return []string{root}
	}
	var roots []string
	for _, name := range []string{"unified", "systemd", "cpu", "memory", "pids", "devices", "blkio"} {
		if _, err := os.Stat(filepath.Join(root, name, "cgroup.procs")); err == nil {
			roots = append(roots, filepath.Join(root, name))
		}
	}
	return roots
}

// path is a unit's cgroup.
func (s *Systemd) path(unit string) string {
	for _, p := range s.units[unit] {
		if p.Name == "Slice" {
			slice, _ := p.Value.Value().(string)
			dir := ""
			stem := strings.TrimSuffix(slice, ".slice")
			for i := range stem {
				if stem[i] == '-' {
					dir += stem[:i] + ".slice/"
				}
			}
			return dir + slice + "/" + unit
		}
	}
	return "system.slice/" + unit
}

// collect removes scopes that are empty.
func (s *Systemd) collect(stop <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	for {
		select {
		case <-stop:
			return
		case <-time.After(3 * time.Millisecond):
		}
		s.mu.Lock()
		for unit := range s.units {
			// Where there is a v2 hierarchy systemd looks only there.
			if body, err := os.ReadFile(filepath.Join(hierarchies()[0], s.path(unit), "cgroup.procs")); err == nil && len(body) == 0 && !s.populated(unit) {
				s.remove(unit)
			}
		}
		s.mu.Unlock()
	}
}

// populated says whether a scope or groups below it have processes, in any
// hierarchy: one that is just coming enters them one after the other.
func (s *Systemd) populated(unit string) bool {
	found := false
	for _, root := range hierarchies() {
		_ = filepath.WalkDir(filepath.Join(root, s.path(unit)), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				body, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
				found = found || len(body) > 0
			}
			return nil
		})
	}
	return found
}

// kill ends the processes of a scope and waits for that.
func (s *Systemd) kill(unit string) {
	for range 1000 {
		body, err := os.ReadFile(filepath.Join(hierarchies()[0], s.path(unit), "cgroup.procs"))
		if err != nil || len(body) == 0 {
			return
		}
		for _, pid := range strings.Fields(string(body)) {
			if number, err := strconv.Atoi(pid); err == nil && number > 1 {
				_ = unix.Kill(number, unix.SIGKILL)
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (s *Systemd) remove(unit string) {
	for _, root := range hierarchies() {
		// A process that is just going may still be in the way.
		for try := 0; unix.Rmdir(filepath.Join(root, s.path(unit))) == unix.EBUSY && try < 100; try++ {
			time.Sleep(2 * time.Millisecond)
		}
	}
	delete(s.units, unit)
}

// end answers a job that will end, as the caller sees it, in a moment.
func (s *Systemd) end(unit string) (godbus.ObjectPath, *godbus.Error) {
	s.jobs++
	id, result := s.jobs, s.result
	if result == "" {
		result = "done"
	}
	job := godbus.ObjectPath(fmt.Sprintf("%s/job/%d", object, id))
	if !s.silent {
		go func() {
			if err := s.conn.Emit(object, manager+".JobRemoved", id, job, unit, result); err != nil && !errors.Is(err, godbus.ErrClosed) {
				s.t.Error(err)
			}
		}()
	}
	return job, nil
}

func failure(name, format string, args ...any) *godbus.Error {
	return godbus.NewError("org.freedesktop.systemd1."+name, []any{fmt.Sprintf(format, args...)})
}

// methods is the manager's interface.
type methods struct{ s *Systemd }

// Auxiliary is a unit that is started beside another.
type Auxiliary struct {
	Name       string
	Properties []Property
}

// StartTransientUnit makes a scope.
func (m methods) StartTransientUnit(unit, _ string, properties []Property, _ []Auxiliary) (godbus.ObjectPath, *godbus.Error) {
	s := m.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.units[unit] != nil {
		return "", failure("UnitExists", "Unit %s already exists.", unit)
	}
	if s.result != "" && !s.silent {
		return s.end(unit)
	}
	s.units[unit] = properties
	var pids []uint32
	for _, p := range properties {
		if p.Name == "PIDs" {
			pids, _ = p.Value.Value().([]uint32)
		}
		if p.Name == "Nonsense" {
			delete(s.units, unit)
			return "", godbus.NewError("org.freedesktop.DBus.Error.PropertyReadOnly", []any{"Cannot set property " + p.Name + ", or unknown property."})
		}
	}
	if len(pids) == 0 {
		delete(s.units, unit)
		return "", failure("BadUnitSetting", "Scope has no PIDs. Refusing.")
	}
	s.paths[s.path(unit)] = true
	for _, root := range hierarchies() {
		dir := filepath.Join(root, s.path(unit))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", failure("Failed", "%s", err)
		}
		for _, pid := range pids {
			if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(int(pid))), 0); err != nil {
				return "", failure("Failed", "%s", err)
			}
		}
	}
	return s.end(unit)
}

// StopUnit ends a scope.
func (m methods) StopUnit(unit, _ string) (godbus.ObjectPath, *godbus.Error) {
	s := m.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.units[unit] == nil {
		return "", failure("NoSuchUnit", "Unit %s not loaded.", unit)
	}
	s.kill(unit)
	s.remove(unit)
	return s.end(unit)
}

// ResetFailedUnit forgets that a unit failed; none does here.
func (m methods) ResetFailedUnit(unit string) *godbus.Error {
	return failure("NoSuchUnit", "Unit %s not loaded.", unit)
}

// SetUnitProperties changes a unit's properties.
func (m methods) SetUnitProperties(unit string, _ bool, properties []Property) *godbus.Error {
	s := m.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.units[unit] == nil {
		return failure("NoSuchUnit", "Unit %s not loaded.", unit)
	}
	s.units[unit] = append(s.units[unit], properties...)
	return nil
}

// values is the interface of an object's properties.
type values struct{ s *Systemd }

// Get answers the version, whatever is asked for.
func (v values) Get(_, _ string) (godbus.Variant, *godbus.Error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	return godbus.MakeVariant(v.s.version), nil
}
