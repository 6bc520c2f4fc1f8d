package e2e

import (
	"context"
	"testing"
)

// sdk is what a user of Docker's Python SDK does all day.
const sdk = `
import docker, io, tarfile
client = docker.from_env()
assert client.ping()
assert client.version()["ApiVersion"]
assert client.containers.run("busybox", "echo hello", remove=True) == b"hello\n"
try:
    client.containers.run("busybox", "sh -c 'exit 3'", remove=True)
    raise SystemExit("no error for exit code 3")
except docker.errors.ContainerError as e:
    assert e.exit_status == 3, e.exit_status
network = client.networks.create("sdk-net", driver="bridge", labels={"sdk": "1"})
volume = client.volumes.create("sdk-volume")
box = client.containers.run("busybox", "sh -c 'echo up; sleep 600'", name="sdk-box", detach=True, network="sdk-net",
    volumes={"sdk-volume": {"bind": "/data", "mode": "rw"}}, environment={"A": "b"}, mem_limit="64m", ports={"80/tcp": None}, labels={"sdk": "1"})
try:
    box.reload()
    assert box.status == "running", box.status
    assert box.attrs["HostConfig"]["Memory"] == 64 << 20
    assert box.attrs["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
    assert [c.name for c in client.containers.list(filters={"label": "sdk"})] == ["sdk-box"]
    code, output = box.exec_run("sh -c 'echo $A; exit 4'")
    assert (code, output) == (4, b"b\n"), (code, output)
    code, (out, err) = box.exec_run("sh -c 'echo o; echo e >&2'", demux=True)
    assert (out, err) == (b"o\n", b"e\n"), (out, err)
    assert box.logs() == b"up\n", box.logs()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as t:
        info = tarfile.TarInfo("note"); info.size = 4; t.addfile(info, io.BytesIO(b"note"))
    assert box.put_archive("/data", buffer.getvalue())
    stream, stat = box.get_archive("/data/note")
    assert stat["size"] == 4, stat
    assert tarfile.open(fileobj=io.BytesIO(b"".join(stream))).extractfile("note").read() == b"note"
    assert box.stats(stream=False)["memory_stats"]["usage"] > 0
    assert "sleep 600" in str(box.top()["Processes"])
    box.pause(); box.reload(); assert box.status == "paused"; box.unpause()
    box.rename("sdk-renamed"); box.reload(); assert box.name == "sdk-renamed"
    assert network.attrs["Name"] == "sdk-net"
    network.reload(); assert len(network.containers) == 1
    box.stop(timeout=0)
    assert box.wait()["StatusCode"] == 137
finally:
    box.remove(force=True); network.remove(); volume.remove()
image = client.images.get("busybox")
assert "busybox:latest" in image.tags
image.tag("sdk/copy", "1"); assert client.images.get("sdk/copy:1").id == image.id; client.images.remove("sdk/copy:1")
loaded = client.images.load(b"".join(image.save(named=True)))[0]
assert loaded.id == image.id
for missing in (lambda: client.containers.get("sdk-nobody"), lambda: client.images.get("sdk/nothing")):
    try:
        missing(); raise SystemExit("no error for a missing object")
    except docker.errors.NotFound:
        pass
print("all good")
`

func TestThePythonSDK(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	// Debian's interpreter: the package is installed for it.
	cmd := engine.Command(ctx, "/usr/bin/python3", "-c", sdk)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if string(out) != "all good\n" {
		t.Errorf("%s", out)
	}
}
