package storagegrpc

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	storagev1 "github.com/davit-engine/davit/sdk/proto/davit/storage/v1"
	"github.com/davit-engine/davit/sdk/storage"
)

func toProto(i storage.Info) *storagev1.Info {
	p := &storagev1.Info{Name: i.Name, Parent: i.Parent, Labels: i.Labels}
	switch i.Kind {
	case storage.KindView:
		p.Kind = storagev1.Kind_KIND_VIEW
	case storage.KindActive:
		p.Kind = storagev1.Kind_KIND_ACTIVE
	case storage.KindCommitted:
		p.Kind = storagev1.Kind_KIND_COMMITTED
	}
	if !i.Created.IsZero() {
		p.Created = timestamppb.New(i.Created)
	}
	if !i.Updated.IsZero() {
		p.Updated = timestamppb.New(i.Updated)
	}
	return p
}

func fromProto(p *storagev1.Info) storage.Info {
	i := storage.Info{Name: p.GetName(), Parent: p.GetParent(), Labels: p.GetLabels()}
	switch p.GetKind() {
	case storagev1.Kind_KIND_VIEW:
		i.Kind = storage.KindView
	case storagev1.Kind_KIND_ACTIVE:
		i.Kind = storage.KindActive
	case storagev1.Kind_KIND_COMMITTED:
		i.Kind = storage.KindCommitted
	case storagev1.Kind_KIND_UNSPECIFIED:
	}
	if t := p.GetCreated(); t != nil {
		i.Created = t.AsTime()
	}
	if t := p.GetUpdated(); t != nil {
		i.Updated = t.AsTime()
	}
	return i
}

func changeToProto(k storage.ChangeKind) storagev1.ChangeKind {
	switch k {
	case storage.ChangeModify:
		return storagev1.ChangeKind_CHANGE_KIND_MODIFY
	case storage.ChangeAdd:
		return storagev1.ChangeKind_CHANGE_KIND_ADD
	case storage.ChangeDelete:
		return storagev1.ChangeKind_CHANGE_KIND_DELETE
	}
	return storagev1.ChangeKind_CHANGE_KIND_UNSPECIFIED
}

func changeFromProto(k storagev1.ChangeKind) storage.ChangeKind {
	switch k {
	case storagev1.ChangeKind_CHANGE_KIND_ADD:
		return storage.ChangeAdd
	case storagev1.ChangeKind_CHANGE_KIND_DELETE:
		return storage.ChangeDelete
	default:
		return storage.ChangeModify
	}
}
