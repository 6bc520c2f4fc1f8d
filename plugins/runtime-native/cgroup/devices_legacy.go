package cgroup

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// deviceList is v1's view: one answer for all devices and exceptions from it.
type deviceList struct {
	allow      bool
	exceptions []deviceRule
}

// legacyDevices turns rules of which the last decides into v1's list. Exceptions
// from exceptions are more than v1 knows.
func legacyDevices(rules []deviceRule) (deviceList, error) {
	var list deviceList
	for _, r := range rules {
		if r.all() {
			list = deviceList{allow: r.allow}
			continue
		}
		for _, kind := range []int64{unix.BPF_DEVCG_DEV_CHAR, unix.BPF_DEVCG_DEV_BLOCK} {
			if r.kind >= 0 && r.kind != kind {
				continue
			}
			one := r
			one.kind = kind
			if err := list.add(one); err != nil {
				return list, err
			}
		}
	}
	return list, nil
}

func (l *deviceList) add(r deviceRule) error {
	if r.allow != l.allow {
		for i, e := range l.exceptions {
			if e.kind == r.kind && e.major == r.major && e.minor == r.minor {
				l.exceptions[i].access |= r.access
				return nil
			}
		}
		l.exceptions = append(l.exceptions, r)
		return nil
	}
	var rest []deviceRule
	for _, e := range l.exceptions {
		if e.meets(r) && e.access&r.access != 0 {
			if !r.covers(e) {
				return invalid("cgroup v1 cannot except device rule %q from %q", r, e)
			}
			e.access &^= r.access
		}
		if e.access != 0 {
			rest = append(rest, e)
		}
	}
	l.exceptions = rest
	return nil
}

// limitDevices writes the difference between what the group has and what it is
// to have: devices that stay allowed stay so at every moment.
func (l *legacy) limitDevices(list []specs.LinuxDeviceCgroup) error {
	if len(list) == 0 {
		return nil
	}
	rules, err := deviceRules(list)
	if err != nil {
		return err
	}
	wanted, err := legacyDevices(rules)
	if err != nil {
		return err
	}
	dir := l.dir("devices")
	if dir == "" {
		return setting{controller: "devices", file: "devices.allow"}.write(l.dir)
	}
	body, err := readFile(filepath.Join(dir, "devices.list"))
	if err != nil {
		return err
	}
	present, err := parseDeviceList(string(body))
	if err != nil {
		return err
	}
	allow, deny := filepath.Join(dir, "devices.allow"), filepath.Join(dir, "devices.deny")
	write := func(file, rule string) error {
		if err := writeFile(file, rule); err != nil {
			return fmt.Errorf("device rule %q: %w", rule, err)
		}
		return nil
	}
	if wanted.allow || present.allow {
		// The kernel does not show exceptions from "everything".
		file := deny
		if wanted.allow {
			file = allow
		}
		if err := write(file, "a"); err != nil {
			return err
		}
		present = deviceList{allow: wanted.allow}
	}
	grant, revoke := allow, deny
	if wanted.allow {
		grant, revoke = deny, allow
	}
	for _, w := range wanted.exceptions {
		if w.access &^= present.access(w); w.access != 0 {
			if err := write(grant, w.String()); err != nil {
				return err
			}
		}
	}
	for _, p := range present.exceptions {
		if p.access &^= wanted.access(p); p.access != 0 {
			if err := write(revoke, p.String()); err != nil {
				return err
			}
		}
	}
	return nil
}

// access is that of the exception for exactly the devices of r.
func (l deviceList) access(r deviceRule) int32 {
	for _, e := range l.exceptions {
		if e.kind == r.kind && e.major == r.major && e.minor == r.minor {
			return e.access
		}
	}
	return 0
}

// parseDeviceList reads devices.list: "a *:* rwm", or a line for each device that
// is allowed.
func parseDeviceList(body string) (deviceList, error) {
	var list deviceList
	for line := range strings.Lines(body) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return list, fmt.Errorf("devices.list has the line %q", line)
		}
		if fields[0] == "a" {
			return deviceList{allow: true}, nil
		}
		major, minor, _ := strings.Cut(fields[1], ":")
		rule := specs.LinuxDeviceCgroup{Allow: true, Type: fields[0], Access: fields[2]}
		for _, n := range []struct {
			text string
			to   **int64
		}{{major, &rule.Major}, {minor, &rule.Minor}} {
			if n.text == "*" {
				continue
			}
			number, err := strconv.ParseInt(n.text, 10, 64)
			if err != nil {
				return list, fmt.Errorf("devices.list has the line %q", line)
			}
			*n.to = &number
		}
		rules, err := deviceRules([]specs.LinuxDeviceCgroup{rule})
		if err != nil {
			return list, err
		}
		list.exceptions = append(list.exceptions, rules...)
	}
	return list, nil
}
