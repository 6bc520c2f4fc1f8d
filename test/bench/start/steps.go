package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/davit-engine/davit/config"
)

// steps collects the trace that the driver writes to the log.
type steps struct {
	slog.Handler
	mu    sync.Mutex
	names []string
	took  map[string][]time.Duration
}

func newSteps() *steps {
	return &steps{Handler: slog.DiscardHandler, took: map[string][]time.Duration{}}
}

func (s *steps) logger() *slog.Logger {
	if s == nil {
		return nil
	}
	return slog.New(s)
}

// Enabled implements slog.Handler.
func (s *steps) Enabled(context.Context, slog.Level) bool { return true }

// WithAttrs implements slog.Handler; attributes of the plugin are the same for all.
func (s *steps) WithAttrs([]slog.Attr) slog.Handler { return s }

// Handle implements slog.Handler.
func (s *steps) Handle(_ context.Context, r slog.Record) error {
	if r.Level != config.LevelTrace {
		return nil
	}
	r.Attrs(func(a slog.Attr) bool {
		took, err := time.ParseDuration(a.Value.String())
		if a.Key != "took" || err != nil {
			return true
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.took[r.Message] == nil {
			s.names = append(s.names, r.Message)
		}
		s.took[r.Message] = append(s.took[r.Message], took)
		return false
	})
	return nil
}

func (s *steps) print() {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Print("\n| step of Create | median | minimum |\n|---|---|---|\n")
	for _, name := range s.names {
		took := slices.Sorted(slices.Values(s.took[name]))
		fmt.Printf("| %s | %.2f | %.2f |\n", name, took[len(took)/2].Seconds()*1000, took[0].Seconds()*1000)
	}
}
