"""The books of a storage driver in Python whose snapshots are directories."""

import os
import shutil
import subprocess
import threading
import uuid

from davit_plugin import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, NotImplementedByDriver
from davit.mount.v1.mount_pb2 import Mount
from davit.storage.v1 import storage_pb2 as pb
from google.protobuf import json_format


class Directories:
    """Keeps the books of snapshots that are directories with everything in them.

    A driver inherits from it and says with copy how a snapshot is made of its parent.
    Each is a directory of a name of no meaning, with its record (info.json) and its
    files (fs). The record is made last and removed first: what has none was left by a
    crash.
    """

    def copy(self, source, target):
        """Fills the empty directory target with all that is in source."""
        raise NotImplementedError

    def configure(self, setup):
        self.root, self.lock, self.all = setup.root, threading.RLock(), {}  # name: (pb.Info, directory)
        for place in (os.path.join(self.root, name) for name in os.listdir(self.root)):
            try:
                with open(place + "/info.json") as f:
                    info = json_format.Parse(f.read(), pb.Info())
                self.all[info.name] = info, place
            except FileNotFoundError:
                shutil.rmtree(place)

    def save(self, info, place):
        info.updated.GetCurrentTime()
        with open(place + "/info.new", "w") as f:
            f.write(json_format.MessageToJson(info))
        os.rename(place + "/info.new", place + "/info.json")
        self.all[info.name] = info, place

    def find(self, key):
        if key not in self.all:
            raise NotFound(f'snapshot "{key}" is not there')
        return self.all[key]

    def make(self, kind, request):
        with self.lock:  # one copy at a time
            if not request.key:
                raise InvalidArgument("the key is empty")
            if request.key in self.all:
                raise AlreadyExists(f'snapshot "{request.key}" is there')
            if request.parent and self.find(request.parent)[0].kind != pb.KIND_COMMITTED:
                raise InvalidArgument(f'parent "{request.parent}" is not committed')
            info = pb.Info(kind=kind, name=request.key, parent=request.parent, labels=request.labels)
            place = os.path.join(self.root, uuid.uuid4().hex)
            info.created.GetCurrentTime()
            os.makedirs(place + "/fs")
            if request.parent and kind == pb.KIND_ACTIVE:
                try:
                    self.copy(self.find(request.parent)[1] + "/fs", place + "/fs")
                except Exception:
                    shutil.rmtree(place)
                    raise
            self.save(info, place)
            return self.mounts(info, place)

    def mounts(self, info, place):
        view = info.kind == pb.KIND_VIEW
        source = self.find(info.parent)[1] if view and info.parent else place
        return [Mount(type="bind", source=source + "/fs", options=["rbind", "ro" if view else "rw"])]

    def Prepare(self, request):
        return pb.PrepareResponse(mounts=self.make(pb.KIND_ACTIVE, request))

    def View(self, request):
        return pb.ViewResponse(mounts=self.make(pb.KIND_VIEW, request))

    def Mounts(self, request):
        with self.lock:
            info, place = self.find(request.key)
            if info.kind == pb.KIND_COMMITTED:
                raise FailedPrecondition(f'snapshot "{request.key}" is committed')
            return pb.MountsResponse(mounts=self.mounts(info, place))

    def Commit(self, request):
        with self.lock:
            if request.parent:
                raise NotImplementedByDriver("this driver does not rebase snapshots")
            if request.name in self.all:
                raise AlreadyExists(f'snapshot "{request.name}" is there')
            old, place = self.find(request.key)
            if old.kind != pb.KIND_ACTIVE:
                raise FailedPrecondition(f'snapshot "{request.key}" is not active')
            os.sync()
            info = pb.Info(kind=pb.KIND_COMMITTED, name=request.name, parent=old.parent, labels=request.labels)
            info.created.CopyFrom(old.created)
            self.save(info, place)
            os.sync()
            del self.all[request.key]
        return pb.CommitResponse()

    def Remove(self, request):
        with self.lock:
            _, place = self.find(request.key)
            if any(other.parent == request.key for other, _ in self.all.values()):
                raise FailedPrecondition(f'snapshot "{request.key}" has children')
            os.remove(place + "/info.json")
            del self.all[request.key]
            shutil.rmtree(place)
        return pb.RemoveResponse()

    def Stat(self, request):
        with self.lock:
            return pb.StatResponse(info=self.find(request.key)[0])

    def SetLabels(self, request):
        with self.lock:
            info, place = self.find(request.key)
            for label, value in request.labels.items():
                info.labels[label] = value
                if not value:
                    del info.labels[label]
            self.save(info, place)
            return pb.SetLabelsResponse(info=info)

    def List(self, request):
        with self.lock:
            return [pb.ListResponse(info=info) for info, _ in self.all.values() if info.name.startswith(request.prefix)]

    def Usage(self, request):
        with self.lock:
            place = self.find(request.key)[1] + "/fs"
        size = subprocess.run(["du", "-s", "--block-size=1", place], check=True, capture_output=True).stdout
        inodes = subprocess.run(["du", "-s", "--inodes", place], check=True, capture_output=True).stdout
        return pb.UsageResponse(size=int(size.split()[0]), inodes=int(inodes.split()[0]))

    def Release(self, _):
        return pb.ReleaseResponse()  # nothing is mounted on the host
