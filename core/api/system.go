package api

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/system"

	"github.com/davit-engine/davit/core/plugin"
)

func (s *server) systemRoutes() {
	s.handle("GET /_ping", s.ping)
	s.handle("GET /version", s.version)
	s.handle("GET /info", s.info)
	s.handle("GET /events", s.events)
	s.handle("GET /system/df", s.diskUsage)
	s.handle("POST /davit/system/check", s.check)
	s.handle("GET /davit/plugins", s.plugins)
	s.handle("GET /davit/plugins/{name}", s.plugin)
	s.handle("POST /davit/plugins/{name}/upgrade", s.upgradePlugin)
}

// check is davit's own: whether the blobs of images are what they were.
func (s *server) check(w http.ResponseWriter, r *http.Request) error {
	found, err := s.Backend.SystemCheck(r.Context(), flag(r.URL.Query(), "repair"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, found)
}

// ping tells clients the version; they look at the headers.
func (s *server) ping(w http.ResponseWriter, r *http.Request) error {
	head := w.Header()
	head.Set("Builder-Version", "1")
	head.Set("Swarm", "inactive")
	head.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	head.Set("Pragma", "no-cache")
	head.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		head.Set("Content-Length", "0")
		return nil
	}
	_, err := w.Write([]byte("OK"))
	return err
}

func (s *server) version(w http.ResponseWriter, r *http.Request) error {
	version, err := s.Backend.SystemVersion(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, version)
}

func (s *server) info(w http.ResponseWriter, r *http.Request) error {
	info, err := s.Backend.SystemInfo(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, info)
}

func (s *server) events(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	since, err := moment(q, "since")
	if err != nil {
		return err
	}
	until, err := moment(q, "until")
	if err != nil {
		return err
	}
	args, err := filters(q)
	if err != nil {
		return err
	}
	if err := args.Validate("config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret", "service", "type", "volume"); err != nil {
		return err
	}
	out := stream{w}
	w.Header().Set("Content-Type", "application/json")
	w.(http.Flusher).Flush()
	return s.Backend.Events(r.Context(), since, until, args, func(m events.Message) error { return out.send(legacyEvent(m)) })
}

// legacyEvent adds the fields of API versions before 1.52.
func legacyEvent(m events.Message) any {
	legacy := struct {
		Status string `json:"status,omitempty"`
		ID     string `json:"id,omitempty"`
		From   string `json:"from,omitempty"`
		events.Message
	}{Message: m}
	switch m.Type {
	case events.ContainerEventType:
		legacy.Status, legacy.ID, legacy.From = string(m.Action), m.Actor.ID, m.Actor.Attributes["image"]
	case events.ImageEventType:
		legacy.Status, legacy.ID = string(m.Action), m.Actor.ID
	default: // others never had the old fields
	}
	return legacy
}

// diskUsage answers in the form of API versions before 1.52.
func (s *server) diskUsage(w http.ResponseWriter, r *http.Request) error {
	wanted := r.URL.Query()["type"]
	var objects []system.DiskUsageObject
	for _, text := range wanted {
		object := system.DiskUsageObject(text)
		switch object {
		case system.ImageObject, system.ContainerObject, system.VolumeObject, system.BuildCacheObject:
			objects = append(objects, object)
		default:
			return invalid("unknown object type: %s", text)
		}
	}
	usage, err := s.Backend.SystemDiskUsage(r.Context(), objects...)
	if err != nil {
		return err
	}
	legacy := map[string]any{"LayersSize": int64(0), "Images": []any{}, "Containers": []any{}, "Volumes": []any{}, "BuildCache": []any{}, "BuilderSize": 0}
	if asked(wanted, system.ImageObject) && usage.ImageUsage != nil {
		legacy["Images"], legacy["LayersSize"] = usage.ImageUsage.Items, usage.ImageUsage.TotalSize
	}
	if asked(wanted, system.ContainerObject) && usage.ContainerUsage != nil {
		legacy["Containers"] = usage.ContainerUsage.Items
	}
	if asked(wanted, system.VolumeObject) && usage.VolumeUsage != nil {
		legacy["Volumes"] = usage.VolumeUsage.Items
	}
	return writeJSON(w, http.StatusOK, legacy)
}

func asked(wanted []string, object system.DiskUsageObject) bool {
	return len(wanted) == 0 || slices.Contains(wanted, string(object))
}

func (s *server) plugins(w http.ResponseWriter, r *http.Request) error {
	list, err := s.Backend.DriverPlugins(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
}

func (s *server) plugin(w http.ResponseWriter, r *http.Request) error {
	list, err := s.Backend.DriverPlugins(r.Context())
	if err != nil {
		return err
	}
	name := r.PathValue("name")
	i := slices.IndexFunc(list, func(p plugin.Status) bool { return p.Name == name || p.Driver == name })
	if i < 0 {
		return errdefs.ErrNotFound.WithMessage("No such driver plugin: " + name)
	}
	return writeJSON(w, http.StatusOK, list[i])
}

// upgradePlugin takes "force" and "timeout", seconds to wait for calls under way.
func (s *server) upgradePlugin(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	o := plugin.UpgradeOptions{Force: flag(q, "force")}
	if text := q.Get("timeout"); text != "" {
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil || !(seconds > 0 && seconds <= 3600) {
			return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("timeout %q is not a number of seconds up to 3600", text))
		}
		o.Drain = time.Duration(seconds * float64(time.Second))
	}
	done, err := s.Backend.UpgradePlugin(r.Context(), r.PathValue("name"), o)
	if errdefs.IsNotModified(err) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, done)
}
