// Odd is several plugins that misbehave, chosen by the name of the executable.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/network"
	"github.com/davit-engine/davit/sdk/plugin"
	"github.com/davit-engine/davit/sdk/volume"
)

// flaw is what is wrong with this version, which stands behind the executable.
var version, flaw = "1", ""

func main() {
	if self, err := os.ReadFile("/proc/self/exe"); err == nil {
		if _, mark, found := bytes.Cut(self[len(self)-20:], []byte("version 2 ")); found {
			version, flaw = "2", string(mark)
		}
	}
	switch name := filepath.Base(os.Args[0]); name {
	case "davit-volume-crash":
		fmt.Fprintln(os.Stderr, "no such device: /dev/odd")
		os.Exit(3)
	case "davit-volume-hang":
		time.Sleep(time.Hour)
	case "davit-volume-newer":
		handshake := plugin.Handshake()
		handshake.ProtocolVersion = 7
		goplugin.Serve(&goplugin.ServeConfig{
			HandshakeConfig: handshake,
			Plugins:         goplugin.PluginSet{"x": newer{}},
			GRPCServer:      goplugin.DefaultGRPCServer,
		})
	case "davit-network-wrong":
		plugin.Serve(plugin.Plugin{Name: "network-wrong", Version: "1", Volume: &driver{}})
	default:
		if flaw == "crash" {
			fmt.Fprintln(os.Stderr, "version 2 does not like this machine")
			os.Exit(3)
		}
		d := &driver{}
		features := []string{"oddity"}
		if flaw == "features" {
			features = nil
		}
		plugin.Serve(plugin.Plugin{
			Name: "volume-odd", Version: version, Features: features, Volume: d, Configure: d.configure,
		})
	}
}

type newer struct {
	goplugin.NetRPCUnsupportedPlugin
}

func (newer) GRPCServer(*goplugin.GRPCBroker, *grpc.Server) error { return nil }

func (newer) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("not a client")
}

type driver struct {
	volume.Base
	setup plugin.Setup
}

func (d *driver) configure(_ context.Context, s plugin.Setup) error {
	d.setup = s
	if s.Config["refuse"] == true {
		return errdefs.ErrInvalidArgument.WithMessage(`key "refuse": may not be true`)
	}
	if flaw == "configure" {
		return errdefs.ErrInternal.WithMessage("the state of version 1 is not understood")
	}
	s.Logger.Warn("odd is configured", "root", s.Root)
	return nil
}

// Create answers what the plugin was told.
func (d *driver) Create(context.Context, string, map[string]string, map[string]string) (volume.Volume, error) {
	status := map[string]string{"engine": d.setup.EngineID, "run": d.setup.Run}
	for key, value := range d.setup.Config {
		status[key] = fmt.Sprintf("%T %v", value, value)
	}
	return volume.Volume{Mountpoint: d.setup.Root, Status: status}, nil
}

func (d *driver) Get(ctx context.Context, name string) (volume.Volume, error) {
	switch name {
	case "panic":
		panic("odd indeed")
	case "block":
		<-ctx.Done()
		return volume.Volume{}, ctx.Err()
	case "port":
		return volume.Volume{}, fmt.Errorf("bind for 0.0.0.0:80 failed: %w", network.ErrPortInUse)
	case "capabilities":
		text, err := os.ReadFile("/proc/self/status")
		return volume.Volume{Status: map[string]string{"status": string(text)}}, err
	case "env":
		return volume.Volume{Status: map[string]string{"NOTIFY_SOCKET": os.Getenv("NOTIFY_SOCKET")}}, nil
	}
	return volume.Volume{Name: name}, nil
}

// List answers more volumes than fit into one message.
func (d *driver) List(context.Context) ([]volume.Volume, error) {
	vs := make([]volume.Volume, 1000)
	if flaw == "loses" {
		vs = vs[:999]
	}
	for i := range vs {
		vs[i] = volume.Volume{Name: fmt.Sprint(i), Labels: map[string]string{"pad": string(make([]byte, 32<<10))}}
	}
	return vs, nil
}

func (d *driver) Remove(context.Context, string) error { os.Exit(9); return nil }

func (d *driver) Mount(context.Context, string, string) (mount.Mount, error) {
	return mount.Mount{}, errdefs.ErrNotImplemented
}
