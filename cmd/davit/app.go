package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// defaultHost is where davitd listens unless told otherwise.
const defaultHost = "unix:///run/davit.sock"

// apiVersion is fixed, so that no command asks before it acts.
const apiVersion = "1.51"

// app is what commands share: streams and the way to the engine.
type app struct {
	in       *os.File
	out, err io.Writer
	host     string

	api *client.Client
}

func (a *app) address() string {
	for _, host := range []string{a.host, os.Getenv("DAVIT_HOST"), os.Getenv("DOCKER_HOST")} {
		if host != "" {
			return host
		}
	}
	return defaultHost
}

// engine is the client, made when first needed.
func (a *app) engine() (*client.Client, error) {
	if a.api != nil {
		return a.api, nil
	}
	api, err := client.New(client.WithHost(a.address()), client.WithAPIVersion(apiVersion), client.WithUserAgent("davit"))
	if err != nil {
		return nil, fmt.Errorf("address of the engine %q: %w", a.address(), err)
	}
	a.api = api
	return api, nil
}

// each does one thing for every argument and goes on after failures, as Docker
// does.
func (a *app) each(cmd *cobra.Command, args []string, fn func(ctx context.Context, api *client.Client, arg string) error) error {
	api, err := a.engine()
	if err != nil {
		return err
	}
	var failed []string
	for _, arg := range args {
		if err := fn(cmd.Context(), api, arg); err != nil {
			failed = append(failed, explain(err).Error())
		}
	}
	if len(failed) > 0 {
		return &status{1, strings.Join(failed, "\n")}
	}
	return nil
}

// say prints the argument, which is how most commands tell success.
func (a *app) say(arg string) { fmt.Fprintln(a.out, arg) }

// with is a command's action with the client.
func (a *app) with(fn func(cmd *cobra.Command, api *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		api, err := a.engine()
		if err != nil {
			return err
		}
		return explain(fn(cmd, api, args))
	}
}

// explain adds what to do when nobody answers.
func explain(err error) error {
	if err == nil || !client.IsErrConnectionFailed(err) {
		return err
	}
	hint := "Is davitd running? Start it with: systemctl start davitd"
	if errors.Is(err, os.ErrPermission) {
		hint = "Only root and the group davit may use it."
	}
	return &status{1, fmt.Sprintf("%s\n%s", strings.TrimSuffix(err.Error(), ". Is the docker daemon running?"), hint)}
}

// raw asks the engine for something that Docker's client does not know.
func (a *app) raw(ctx context.Context, path string) (*http.Response, error) {
	return a.send(ctx, http.MethodGet, path, http.NoBody)
}

// send asks the engine what Docker's client does not know.
func (a *app) send(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	return a.sendWith(ctx, method, path, body, nil)
}

// sendWith is send with further header fields.
func (a *app) sendWith(ctx context.Context, method, path string, body io.Reader, fields map[string]string) (*http.Response, error) {
	api, err := a.engine()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return api.Dialer()(ctx) }, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(ctx, method, "http://davit"+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	for key, value := range fields {
		req.Header.Set(key, value)
	}
	return (&http.Client{Transport: transport}).Do(req)
}

// errNotModified is the answer that there is nothing to do.
var errNotModified = errors.New("not modified")

// answer sends a request that Docker's client does not know, without a body and with
// further header fields, and reads what the engine answers, or why it refuses.
func (a *app) answer(ctx context.Context, method, path string, fields map[string]string) (json.RawMessage, error) {
	response, err := a.sendWith(ctx, method, path, http.NoBody, fields)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to davitd at %s: %w. Is it running?", a.address(), err)
	}
	defer func() { _ = response.Body.Close() }()
	switch response.StatusCode {
	case http.StatusOK:
		return io.ReadAll(response.Body)
	case http.StatusNotModified:
		return nil, errNotModified
	}
	return nil, refusedBy(response)
}
