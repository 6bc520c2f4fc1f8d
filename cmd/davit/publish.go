package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/moby/moby/api/types/network"
)

// publish replaces the published ports of a container.
func (a *app) publish(ctx context.Context, name string, ports network.PortMap) error {
	body, err := json.Marshal(map[string]network.PortMap{"PortBindings": ports})
	if err != nil {
		return err
	}
	response, err := a.send(ctx, http.MethodPost, "/davit/containers/"+url.PathEscape(name)+"/ports", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode == http.StatusOK {
		return nil
	}
	var answer struct{ Message string }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || answer.Message == "" {
		return fmt.Errorf("the engine at %s cannot change published ports: %s", a.address(), response.Status)
	}
	return fmt.Errorf("Error response from daemon: %s", answer.Message)
}
