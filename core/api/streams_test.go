package api

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
)

// logStream is a log made of a function.
type logStream struct {
	terminal bool
	copy     func(ctx context.Context, out io.Writer) error
}

func (l logStream) Terminal() bool { return l.terminal }

func (l logStream) Copy(ctx context.Context, out io.Writer) error { return l.copy(ctx, out) }

func TestLogsNameTheirFraming(t *testing.T) {
	for terminal, want := range map[bool]string{
		false: "application/vnd.docker.multiplexed-stream", true: "application/vnd.docker.raw-stream",
	} {
		b := fake{logs: func(string, LogsOptions) (LogStream, error) {
			return logStream{terminal, func(_ context.Context, out io.Writer) error { _, err := io.WriteString(out, "a line\n"); return err }}, nil
		}}
		w := ask(t, b, http.MethodGet, "/containers/web/logs?stdout=1", "")
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != want || w.Body.String() != "a line\n" {
			t.Errorf("terminal %v: %d %v %q", terminal, w.Code, w.Header(), w.Body)
		}
	}
}

func TestLogsDecodeTheirOptions(t *testing.T) {
	for query, want := range map[string]LogsOptions{
		"stdout=1": {Stdout: true, Tail: -1},
		"stdout=1&stderr=1&follow=1&timestamps=1&details=1": {Stdout: true, Stderr: true, Follow: true, Timestamps: true, Details: true, Tail: -1},
		"tail=all":                   {Tail: -1},
		"tail=5":                     {Tail: 5},
		"tail=0":                     {Tail: 0},
		"tail=few":                   {Tail: -1},
		"since=1&until=2.5":          {Since: time.Unix(1, 0), Until: time.Unix(2, 500_000_000), Tail: -1},
		"since=0&until=0":            {Tail: -1},
		"since=1.000000001":          {Since: time.Unix(1, 1), Tail: -1},
		"since=2026-01-02T03:04:05Z": {Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Tail: -1},
	} {
		var got LogsOptions
		b := fake{logs: func(_ string, o LogsOptions) (LogStream, error) {
			got = o
			return logStream{false, func(context.Context, io.Writer) error { return nil }}, nil
		}}
		ask(t, b, http.MethodGet, "/containers/web/logs?"+query, "")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", query, diff)
		}
	}
	for _, field := range []string{"since", "until"} {
		w := ask(t, fake{}, http.MethodGet, "/containers/web/logs?"+field+"=yesterday", "")
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), `invalid value \"yesterday\" for `+field) {
			t.Errorf("answer %d %s", w.Code, w.Body)
		}
	}
}

// A log that is followed may stay silent for days: neither the header nor a line
// may wait for the next one, and the end of the client is the end of following.
func TestFollowedLogsArriveAtOnceAndEndWithTheClient(t *testing.T) {
	lines, left := make(chan string), make(chan struct{})
	server := listen(t, fake{logs: func(string, LogsOptions) (LogStream, error) {
		return logStream{true, func(ctx context.Context, out io.Writer) error {
			for {
				select {
				case line := <-lines:
					if _, err := io.WriteString(out, line); err != nil {
						return err
					}
				case <-ctx.Done():
					close(left)
					return ctx.Err()
				}
			}
		}}, nil
	}})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/containers/web/logs?stdout=1&follow=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	in := bufio.NewReader(response.Body)
	for _, want := range []string{"one\n", "two\n"} {
		lines <- want
		if line, err := in.ReadString('\n'); err != nil || line != want {
			t.Fatalf("line %q, %v", line, err)
		}
	}
	cancel()
	select {
	case <-left:
	case <-time.After(10 * time.Second):
		t.Error("the log is still followed for a client that left")
	}
}

func TestALogThatBreaksOffKeepsWhatWasSent(t *testing.T) {
	b := fake{logs: func(string, LogsOptions) (LogStream, error) {
		return logStream{true, func(_ context.Context, out io.Writer) error {
			_, _ = io.WriteString(out, "a line\n")
			return errors.New("the disk is on fire")
		}}, nil
	}}
	server := listen(t, b)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/containers/web/logs?stdout=1", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	// An error among the lines would look like one of them; a clean end would look
	// as if there were no more.
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK || string(body) != "a line\n" || err == nil {
		t.Errorf("answer %d %q, %v", resp.StatusCode, body, err)
	}
}

var someStat = container.PathStat{Name: "passwd", Size: 7, Mode: 0o644 | fs.ModeSymlink, Mtime: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), LinkTarget: "/etc/other"}

func statOf(t *testing.T, header http.Header) container.PathStat {
	t.Helper()
	var stat container.PathStat
	body, err := base64.StdEncoding.DecodeString(header.Get("X-Docker-Container-Path-Stat"))
	if err == nil {
		err = json.Unmarshal(body, &stat)
	}
	if err != nil {
		t.Errorf("header %v: %v", header, err)
	}
	return stat
}

// tracked is content that knows whether it was closed.
type tracked struct {
	io.Reader
	closed bool
}

func (c *tracked) Close() error { c.closed = true; return nil }

func TestAnArchiveComesWithItsDescription(t *testing.T) {
	content := &tracked{Reader: strings.NewReader("the archive")}
	b := fake{
		archive: func(name, path string) (io.ReadCloser, container.PathStat, error) {
			if name != "web" || path != "/etc/my passwd" {
				t.Errorf("asked for %q of %q", path, name)
			}
			return content, someStat, nil
		},
		stat: func(_, path string) (container.PathStat, error) { return someStat, nil },
	}
	const target = "/containers/web/archive?path=%2Fetc%2Fmy%20passwd"
	w := ask(t, b, http.MethodGet, target, "")
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/x-tar" || w.Body.String() != "the archive" {
		t.Errorf("answer %d %v %q", w.Code, w.Header(), w.Body)
	}
	if diff := cmp.Diff(someStat, statOf(t, w.Header())); diff != "" {
		t.Errorf("description (-want +got):\n%s", diff)
	}
	if !content.closed {
		t.Error("the archive was left open")
	}
	w = ask(t, b, http.MethodHead, target, "")
	if w.Code != http.StatusOK || w.Body.Len() != 0 {
		t.Errorf("HEAD is answered %d %q", w.Code, w.Body)
	}
	if diff := cmp.Diff(someStat, statOf(t, w.Header())); diff != "" {
		t.Errorf("description alone (-want +got):\n%s", diff)
	}
}

func TestAnArchiveNeedsAPath(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut} {
		refused(t, ask(t, fake{}, method, "/containers/web/archive", ""), http.StatusBadRequest, "bad parameter: 'path' cannot be empty")
	}
}

func TestAnArchiveOfNothingIsNotFound(t *testing.T) {
	missing := errdefs.ErrNotFound.WithMessage("Could not find the file /nosuch in container web")
	b := fake{
		archive: func(string, string) (io.ReadCloser, container.PathStat, error) {
			return nil, container.PathStat{}, missing
		},
		stat: func(string, string) (container.PathStat, error) { return container.PathStat{}, missing },
	}
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		w := ask(t, b, method, "/containers/web/archive?path=/nosuch", "")
		refused(t, w, http.StatusNotFound, missing.Error())
		if w.Header().Get("X-Docker-Container-Path-Stat") != "" {
			t.Error("nothing is described")
		}
	}
}

func TestAnArchiveIsUnpackedAsItComes(t *testing.T) {
	var options ExtractOptions
	var got string
	b := fake{extract: func(_, path string, o ExtractOptions, content io.Reader) error {
		body, err := io.ReadAll(content)
		options, got = o, path+" "+string(body)
		return err
	}}
	w := send(t, handlerOf(b), "/containers/web/archive?path=/data", "", "")
	if w.Code != http.StatusNotFound {
		t.Errorf("POST is answered %d", w.Code)
	}
	if w := ask(t, b, http.MethodPut, "/containers/web/archive?path=/data&noOverwriteDirNonDir=true&copyUIDGID=1", "any bytes"); w.Code != http.StatusOK {
		t.Errorf("answer %d %s", w.Code, w.Body)
	}
	if got != "/data any bytes" || options != (ExtractOptions{NoOverwriteDirNonDir: true, CopyUIDGID: true}) {
		t.Errorf("unpacked %q with %+v", got, options)
	}
}

// counting answers stats whose readings grow, until the container is removed.
func counting(last int) fake {
	reading := 0
	return fake{stats: func(string) (container.StatsResponse, error) {
		if reading++; reading > last {
			return container.StatsResponse{}, errdefs.ErrNotFound.WithMessage("No such container: web")
		}
		response := container.StatsResponse{Read: time.Unix(int64(reading), 0).UTC()}
		response.CPUStats.SystemUsage = uint64(reading)
		return response, nil
	}}
}

func TestOneShotStatsAreOneReading(t *testing.T) {
	got := answered[container.StatsResponse](t, ask(t, counting(1), http.MethodGet, "/containers/web/stats?stream=0&one-shot=1", ""), http.StatusOK)
	if got.CPUStats.SystemUsage != 1 || got.PreCPUStats.SystemUsage != 0 {
		t.Errorf("readings %d and %d", got.PreCPUStats.SystemUsage, got.CPUStats.SystemUsage)
	}
}

// Clients compute percentages from the difference of two readings.
func TestStatsWithoutAStreamCompareTwoReadings(t *testing.T) {
	got := answered[container.StatsResponse](t, ask(t, counting(2), http.MethodGet, "/containers/web/stats?stream=false", ""), http.StatusOK)
	if got.CPUStats.SystemUsage != 2 || got.PreCPUStats.SystemUsage != 1 || !got.PreRead.Equal(time.Unix(1, 0)) {
		t.Errorf("readings %d at %v and %d", got.PreCPUStats.SystemUsage, got.PreRead, got.CPUStats.SystemUsage)
	}
}

func TestAStreamOfStatsEndsWithTheContainer(t *testing.T) {
	w := ask(t, counting(2), http.MethodGet, "/containers/web/stats", "")
	decoder := json.NewDecoder(w.Body)
	for want := range uint64(2) {
		var got container.StatsResponse
		if err := decoder.Decode(&got); err != nil || got.CPUStats.SystemUsage != want+1 || got.PreCPUStats.SystemUsage != want {
			t.Errorf("readings %d and %d, %v", got.PreCPUStats.SystemUsage, got.CPUStats.SystemUsage, err)
		}
	}
	if decoder.More() {
		t.Error("there is more after the container has gone")
	}
}

func TestStatsCannotBeOneAndMany(t *testing.T) {
	refused(t, ask(t, fake{}, http.MethodGet, "/containers/web/stats?stream=1&one-shot=1", ""), http.StatusBadRequest, "cannot have stream=true and one-shot=true")
	refused(t, ask(t, counting(0), http.MethodGet, "/containers/web/stats", ""), http.StatusNotFound, "No such container: web")
}
