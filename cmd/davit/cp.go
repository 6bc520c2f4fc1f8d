package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/moby/go-archive"
	"github.com/moby/moby/client"
	"github.com/moby/term"
	"github.com/spf13/cobra"
)

func cpCommand(a *app) *cobra.Command {
	var follow, keepOwner, quiet bool
	cmd := &cobra.Command{
		Use:   "cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-  or  SRC_PATH|- CONTAINER:DEST_PATH",
		Short: "Copy files/folders between a container and the local filesystem", Args: exactly(2),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			from, source := splitCopy(args[0])
			to, target := splitCopy(args[1])
			switch {
			case source == "" || target == "":
				return &status{1, "source and destination can not be empty"}
			case from != "" && to != "":
				return &status{1, "copying between containers is not supported"}
			case from != "":
				return a.copyOut(cmd.Context(), api, from, source, target, follow)
			case to != "":
				return a.copyIn(cmd.Context(), api, source, to, target, follow, keepOwner)
			}
			return &status{1, "must specify at least one container source"}
		}),
	}
	cmd.Flags().BoolVarP(&follow, "follow-link", "L", false, "Always follow symbol link in SRC_PATH")
	cmd.Flags().BoolVarP(&keepOwner, "archive", "a", false, "Archive mode (copy all uid/gid information)")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Suppress progress output during copy")
	return cmd
}

// splitCopy divides CONTAINER:PATH; what starts like a path is one.
func splitCopy(arg string) (container, name string) {
	if filepath.IsAbs(arg) || strings.HasPrefix(arg, ".") {
		return "", arg
	}
	container, name, ok := strings.Cut(arg, ":")
	if !ok {
		return "", arg
	}
	return container, name
}

func (a *app) copyOut(ctx context.Context, api *client.Client, container, source, target string, follow bool) error {
	if follow {
		stat, err := api.ContainerStatPath(ctx, container, client.ContainerStatPathOptions{Path: source})
		if err == nil && stat.Stat.Mode&os.ModeSymlink != 0 {
			link := stat.Stat.LinkTarget
			if !path.IsAbs(link) {
				link = path.Join(path.Dir(source), link)
			}
			source = link
		}
	}
	result, err := api.CopyFromContainer(ctx, container, client.CopyFromContainerOptions{SourcePath: source})
	if err != nil {
		return err
	}
	defer func() { _ = result.Content.Close() }()
	if target == "-" {
		if file, ok := a.out.(interface{ Fd() uintptr }); ok && term.IsTerminal(file.Fd()) {
			return errors.New("refusing to write the archive to a terminal: redirect the output")
		}
		_, err := io.Copy(a.out, result.Content)
		return err
	}
	info := archive.CopyInfo{Path: source, Exists: true, IsDir: result.Stat.Mode.IsDir()}
	return archive.CopyTo(result.Content, info, target)
}

func (a *app) copyIn(ctx context.Context, api *client.Client, source, container, target string, follow, keepOwner bool) error {
	target = path.Clean("/"+strings.TrimPrefix(target, "/")) + trailing(target)
	destination := archive.CopyInfo{Path: target}
	stat, err := api.ContainerStatPath(ctx, container, client.ContainerStatPathOptions{Path: target})
	if err == nil && stat.Stat.Mode&os.ModeSymlink != 0 {
		link := stat.Stat.LinkTarget
		if !path.IsAbs(link) {
			link = path.Join(path.Dir(target), link)
		}
		destination.Path = link
		stat, err = api.ContainerStatPath(ctx, container, client.ContainerStatPathOptions{Path: link})
	}
	switch {
	case err == nil:
		destination.Exists, destination.IsDir = true, stat.Stat.Mode.IsDir()
	case !isNotFound(err):
		return err
	}
	o := client.CopyToContainerOptions{CopyUIDGID: keepOwner}
	if source == "-" {
		if !destination.IsDir {
			return fmt.Errorf("destination \"%s:%s\" must be a directory", container, target)
		}
		o.DestinationPath, o.Content = destination.Path, a.in
		_, err := api.CopyToContainer(ctx, container, o)
		return err
	}
	info, err := archive.CopyInfoSourcePath(source, follow)
	if err != nil {
		return err
	}
	content, err := archive.TarResource(info)
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }()
	dir, prepared, err := archive.PrepareArchiveCopy(content, info, destination)
	if err != nil {
		return err
	}
	defer func() { _ = prepared.Close() }()
	o.DestinationPath, o.Content = dir, prepared
	_, err = api.CopyToContainer(ctx, container, o)
	return err
}

func trailing(name string) string {
	if strings.HasSuffix(name, "/") && name != "/" {
		return "/"
	}
	if strings.HasSuffix(name, "/.") {
		return "/."
	}
	return ""
}

func exportCommand(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "export [OPTIONS] CONTAINER", Short: "Export a container's filesystem as a tar archive", Args: exactly(1),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			body, err := api.ContainerExport(cmd.Context(), args[0], client.ContainerExportOptions{})
			if err != nil {
				return err
			}
			defer func() { _ = body.Close() }()
			return a.writeOutput(output, body)
		}),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	return cmd
}

// writeOutput writes to a file, which appears only when it is complete, or to
// standard output.
func (a *app) writeOutput(name string, body io.Reader) error {
	if name == "" {
		if file, ok := a.out.(interface{ Fd() uintptr }); ok && term.IsTerminal(file.Fd()) {
			return errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")
		}
		_, err := io.Copy(a.out, body)
		return err
	}
	// A device or pipe of that name would be replaced by a file.
	if info, err := os.Stat(name); err == nil && !info.IsDir() && !info.Mode().IsRegular() {
		return fmt.Errorf("invalid output path: %q must be a directory or a regular file: it is %s", name, info.Mode())
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".davit-*")
	if err != nil {
		return err
	}
	_, err = io.Copy(f, body)
	err = errors.Join(err, f.Chmod(0o600), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
