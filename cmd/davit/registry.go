package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/distribution/reference"
	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"
	"github.com/moby/term"
	"github.com/spf13/cobra"
)

// dockerHub is the key of Docker's own registry in config.json.
const dockerHub = "https://index.docker.io/v1/"

// credentials answers what config.json, or the helper it names, has for the
// registry of an image, encoded for the engine; empty if there is nothing.
func (a *app) credentials(image string) (string, error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", errors.New("invalid reference format")
	}
	key := reference.Domain(named)
	if key == "docker.io" {
		key = dockerHub
	}
	file, err := a.configFile()
	if err != nil {
		return "", err
	}
	auth, err := file.GetAuthConfig(key)
	if err != nil {
		return "", fmt.Errorf("reading the credentials for %s: %w", key, err)
	}
	if auth == (types.AuthConfig{ServerAddress: auth.ServerAddress}) {
		return "", nil
	}
	return authconfig.Encode(registry.AuthConfig{
		Username: auth.Username, Password: auth.Password, Auth: auth.Auth, ServerAddress: auth.ServerAddress,
		IdentityToken: auth.IdentityToken, RegistryToken: auth.RegistryToken,
	})
}

func pushCommand(a *app) *cobra.Command {
	var all, quiet bool
	var platform string
	cmd := &cobra.Command{
		Use: "push [OPTIONS] NAME[:TAG]", Short: "Upload an image to a registry", Args: exactly(1),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			named, err := reference.ParseNormalizedNamed(args[0])
			if err != nil {
				return &status{1, "invalid reference format"}
			}
			if all && !reference.IsNameOnly(named) {
				return &status{1, "tag can't be used with --all-tags/-a"}
			}
			auth, err := a.credentials(args[0])
			if err != nil {
				return err
			}
			o := client.ImagePushOptions{All: all, RegistryAuth: auth}
			if o.Platform, err = parsePlatform(platform); err != nil {
				return err
			}
			body, err := api.ImagePush(cmd.Context(), args[0], o)
			if err != nil {
				return err
			}
			defer func() { _ = body.Close() }()
			if !quiet {
				return display(body, a.out)
			}
			if err := display(body, io.Discard); err != nil {
				return err
			}
			a.say(reference.TagNameOnly(named).String())
			return nil
		}),
	}
	cmd.Flags().BoolVarP(&all, "all-tags", "a", false, "Push all tags of an image to the repository")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	cmd.Flags().StringVar(&platform, "platform", "", `Push only the given platform, formatted as "os[/arch[/variant]]"`)
	return cmd
}

func loginCommand(a *app) *cobra.Command {
	var user, password string
	var fromStdin bool
	cmd := &cobra.Command{
		Use: "login [OPTIONS] [SERVER]", Short: "Authenticate to a registry", Args: between(0, 1),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			server := dockerHub
			if len(args) == 1 {
				server = serverKey(args[0])
			}
			if password != "" {
				fmt.Fprintln(a.err, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
			}
			auth, err := a.ask(server, user, password, fromStdin)
			if err != nil {
				return err
			}
			return a.login(cmd.Context(), api, auth)
		}),
	}
	cmd.Flags().StringVarP(&user, "username", "u", "", "Username")
	cmd.Flags().StringVarP(&password, "password", "p", "", "Password")
	cmd.Flags().BoolVar(&fromStdin, "password-stdin", false, "Take the password from stdin")
	cmd.MarkFlagsMutuallyExclusive("password", "password-stdin")
	return cmd
}

// serverKey is how config.json names a registry: host and port alone.
func serverKey(server string) string {
	if server == dockerHub || server == "docker.io" || server == "index.docker.io" {
		return dockerHub
	}
	if _, rest, found := strings.Cut(server, "://"); found {
		server = rest
	}
	host, _, _ := strings.Cut(server, "/")
	return host
}

// ask completes credentials from standard input.
func (a *app) ask(server, user, password string, fromStdin bool) (registry.AuthConfig, error) {
	auth := registry.AuthConfig{ServerAddress: server, Username: user, Password: password}
	if fromStdin {
		if user == "" {
			return auth, &status{1, "must provide --username with --password-stdin"}
		}
		body, err := io.ReadAll(a.in)
		if err != nil {
			return auth, err
		}
		auth.Password = strings.TrimSuffix(strings.TrimSuffix(string(body), "\n"), "\r")
		return auth, nil
	}
	if auth.Username != "" && auth.Password != "" {
		return auth, nil
	}
	if !term.IsTerminal(a.in.Fd()) {
		return auth, &status{1, "Error: Cannot perform an interactive login from a non TTY device"}
	}
	in := bufio.NewReader(a.in)
	var err error
	if auth.Username == "" {
		fmt.Fprint(a.out, "Username: ")
		if auth.Username, err = line(in); err != nil {
			return auth, err
		}
	}
	if auth.Password == "" {
		fmt.Fprint(a.out, "Password: ")
		if auth.Password, err = a.secretly(in); err != nil {
			return auth, err
		}
		fmt.Fprintln(a.out)
	}
	if auth.Username == "" || auth.Password == "" {
		return auth, &status{1, "Error: username and password are required"}
	}
	return auth, nil
}

func line(in *bufio.Reader) (string, error) {
	text, err := in.ReadString('\n')
	return strings.TrimSpace(text), err
}

// secretly reads a line that the terminal does not show.
func (a *app) secretly(in *bufio.Reader) (text string, err error) {
	before, err := term.SaveState(a.in.Fd())
	if err != nil {
		return "", err
	}
	if err := term.DisableEcho(a.in.Fd(), before); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, term.RestoreTerminal(a.in.Fd(), before)) }()
	return line(in)
}

// login has the engine ask the registry and keeps what it took.
func (a *app) login(ctx context.Context, api *client.Client, auth registry.AuthConfig) error {
	answer, err := api.RegistryLogin(ctx, client.RegistryLoginOptions{Username: auth.Username, Password: auth.Password, ServerAddress: auth.ServerAddress})
	if err != nil {
		return err
	}
	keep := types.AuthConfig{ServerAddress: auth.ServerAddress, Username: auth.Username, Password: auth.Password}
	if token := answer.Auth.IdentityToken; token != "" {
		keep.IdentityToken, keep.Password = token, ""
	}
	file, err := a.configFile()
	if err != nil {
		return err
	}
	store := file.GetCredentialsStore(auth.ServerAddress)
	if err := store.Store(keep); err != nil {
		return fmt.Errorf("keeping the credentials: %w", err)
	}
	if file.CredentialsStore == "" && file.CredentialHelpers[auth.ServerAddress] == "" {
		fmt.Fprintf(a.err, "WARNING! Your credentials are stored unencrypted in '%s'.\n", file.Filename)
	}
	a.say("Login Succeeded")
	return nil
}

func logoutCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "logout [SERVER]", Short: "Log out from a registry", Args: between(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			server := dockerHub
			if len(args) == 1 {
				server = serverKey(args[0])
			}
			file, err := a.configFile()
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, "Removing login credentials for", server)
			if err := file.GetCredentialsStore(server).Erase(server); err != nil {
				return fmt.Errorf("could not erase credentials: %w", err)
			}
			return nil
		},
	}
}

// configFile is the config.json that Docker's client has, too: $DOCKER_CONFIG, or
// ~/.docker.
func (a *app) configFile() (*configfile.ConfigFile, error) {
	file, err := config.Load(config.Dir())
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", config.Dir(), err)
	}
	return file, nil
}
