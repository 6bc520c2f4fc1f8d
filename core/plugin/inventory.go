package plugin

import (
	"context"
	"encoding/json"
	"fmt"

	"google.golang.org/grpc"

	"github.com/davit-engine/davit/sdk/network/networkgrpc"
	"github.com/davit-engine/davit/sdk/runtime/runtimegrpc"
	"github.com/davit-engine/davit/sdk/storage"
	"github.com/davit-engine/davit/sdk/storage/storagegrpc"
	"github.com/davit-engine/davit/sdk/volume/volumegrpc"
)

// inventory lists what a driver has, one line for each thing with all that must
// not change when another process takes over. What changes by itself, like the
// state of a container, is not in it.
func inventory(ctx context.Context, kind Kind, conn grpc.ClientConnInterface) (list []string, err error) {
	switch kind {
	case Storage:
		err = storagegrpc.NewClient(conn).List(ctx, "", func(i storage.Info) error {
			list = append(list, fmt.Sprintf("%s snapshot %s of %q %v", i.Kind, i.Name, i.Parent, i.Labels))
			return nil
		})
	case Network:
		state, failure := networkgrpc.NewClient(conn).List(ctx)
		err = failure
		for _, n := range state.Networks {
			list = append(list, "network "+line(n))
		}
		for _, e := range state.Endpoints {
			list = append(list, "endpoint "+line(e))
		}
	case Runtime:
		states, failure := runtimegrpc.NewClient(conn).List(ctx)
		err = failure
		for _, s := range states {
			list = append(list, "container "+s.ID)
		}
	case Volume:
		volumes, failure := volumegrpc.NewClient(conn).List(ctx)
		err = failure
		for _, v := range volumes {
			list = append(list, fmt.Sprintf("volume %s %v %v", v.Name, v.Options, v.Labels))
		}
	}
	return list, err
}

// line is all there is to say of something, also behind pointers.
func line(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("%+v", v)
	}
	return string(text)
}
