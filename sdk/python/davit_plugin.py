"""Serves a davit driver written in Python.

It needs grpcio and protobuf (Debian: python3-grpcio, which brings python3-protobuf),
the modules that protoc makes of davit's protos, and the program openssl where the
engine wants TLS (plugins.auto_mtls). A driver is an object with a method for each RPC
of its service, which takes the request and answers the response, or for a stream an
iterable of responses; calls come from several threads at once. What it raises of this
module is answered with its code, anything else is a defect and answered as INTERNAL.

    class Driver:
        def configure(self, setup): ...      # setup.root, .run, .engine_id, .config
        def Get(self, request): ...

    davit_plugin.serve("volume-python", "1.0.0", volume_pb2.DESCRIPTOR, Driver())

The protocol itself is described in davit's docs/plugin-protocol.md.
"""

import base64
import datetime
import json
import os
import select
import subprocess
import sys
import threading
import traceback
from concurrent import futures

import grpc
from google.protobuf import json_format, message_factory

from davit.plugin.v1 import plugin_pb2

COOKIE = "7d2b1c5e-davit-driver"
MAX_MESSAGE = 16 << 20


class Error(Exception):
    """An error of a kind; the text is for people."""

    code = grpc.StatusCode.UNKNOWN
    reason = ""  # where it is not the name of the code


class InvalidArgument(Error):
    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(Error):
    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(Error):
    code = grpc.StatusCode.ALREADY_EXISTS


class PortInUse(AlreadyExists):
    reason = "PORT_IN_USE"


class FailedPrecondition(Error):
    code = grpc.StatusCode.FAILED_PRECONDITION


class ResourceExhausted(Error):
    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class NotImplementedByDriver(Error):
    code = grpc.StatusCode.UNIMPLEMENTED
    reason = "NOT_IMPLEMENTED"


class Unavailable(Error):
    code = grpc.StatusCode.UNAVAILABLE


class Internal(Error):
    code = grpc.StatusCode.INTERNAL


class Setup:
    """What the engine tells before the first call of the driver."""

    def __init__(self, request):
        self.engine_id = request.engine_id  # tags what the driver makes in the kernel
        self.root = request.root  # directory for what survives a reboot
        self.run = request.run  # directory for what does not
        self.config = json_format.MessageToDict(request.config)  # numbers are floats


def log(level, message, **fields):
    """Writes a line to the engine's log; level is debug, info, warn or error."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat()
    line = {"@level": level, "@message": message, "@timestamp": now, **fields}
    sys.stderr.write(json.dumps(line, default=str) + "\n")
    sys.stderr.flush()


def serve(name, version, proto, driver, features=()):
    """Serves the first service of a proto file until the engine ends the process."""
    if os.environ.get("DAVIT_PLUGIN") != COOKIE:
        sys.exit(f"{name} {version} is a driver plugin of davit and does nothing by itself.")
    _leave_with(int(os.environ.get("DAVIT_PLUGIN_PARENT") or os.getppid()))
    service = list(proto.services_by_name.values())[0]
    identity = _Identity(name, version, service.full_name, driver, features)
    limits = [("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.max_send_message_length", MAX_MESSAGE)]
    # The engine asks for signs of life more often than gRPC allows by default.
    limits += [("grpc.keepalive_permit_without_calls", 1), ("grpc.http2.max_ping_strikes", 0)]
    server = grpc.server(futures.ThreadPoolExecutor(32), options=limits)
    server.add_generic_rpc_handlers([
        _handlers(plugin_pb2.DESCRIPTOR.services_by_name["Identity"], identity, lambda: None),
        _handlers(service, driver, identity.ready),
        _raw("grpc.health.v1.Health", "Check", lambda: b"\x08\x01"),  # SERVING
        _raw("plugin.GRPCController", "Shutdown", lambda: _end(server)),
    ])
    socket = os.path.join(os.environ["PLUGIN_UNIX_SOCKET_DIR"], f"plugin-{os.getpid()}")
    ours, theirs = "", os.environ.get("PLUGIN_CLIENT_CERT")
    if theirs:
        key, certificate, ours = _certificate()
        pair = [(key, certificate)]
        server.add_secure_port("unix:" + socket, grpc.ssl_server_credentials(pair, theirs.encode(), True))
    else:
        server.add_insecure_port("unix:" + socket)
    server.start()
    print(f"1|1|unix|{socket}|grpc|{ours}", flush=True)
    server.wait_for_termination()


class _Identity:
    def __init__(self, name, version, service, driver, features):
        self.info = plugin_pb2.InfoResponse(name=name, version=version, services=[{"name": service, "features": features}])
        self.driver, self.lock, self.configured = driver, threading.Lock(), False

    def ready(self):
        with self.lock:
            if not self.configured:
                raise FailedPrecondition("the driver is called before Configure")

    def Info(self, _):
        return self.info

    def Configure(self, request):
        with self.lock:
            if not self.configured:
                self.driver.configure(Setup(request))
                self.configured = True
        return plugin_pb2.ConfigureResponse()

    def Health(self, _):
        reason = self.driver.health() if hasattr(self.driver, "health") else ""
        return plugin_pb2.HealthResponse(healthy=not reason, reason=reason)

    def Shutdown(self, _):
        if hasattr(self.driver, "shutdown"):
            self.driver.shutdown()
        return plugin_pb2.ShutdownResponse()


def _class_of(descriptor):
    if hasattr(message_factory, "GetMessageClass"):  # since protobuf 4.22
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory().GetPrototype(descriptor)


def _handlers(service, implementation, before):
    """Serves the methods of a service that an object has; others are UNIMPLEMENTED."""
    methods = {}
    for method in service.methods:
        call = getattr(implementation, method.name, None)
        if call is None:
            continue
        make = grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
        methods[method.name] = make(
            _guarded(method.name, call, before, method.server_streaming),
            request_deserializer=_class_of(method.input_type).FromString,
            response_serializer=lambda response: response.SerializeToString(),
        )
    return grpc.method_handlers_generic_handler(service.full_name, methods)


def _guarded(name, call, before, stream):
    def one(request, context):
        try:
            before()
            return list(call(request)) if stream else call(request)
        except Exception as error:
            if not isinstance(error, Error):
                log("error", "defect of the driver", method=name, error=error, stack=traceback.format_exc())
                error = Internal(f"{name}: {error!r}")
            reason = error.reason or error.code.name
            details = _error_details(error.code.value[0], str(error), reason)
            context.set_trailing_metadata([("grpc-status-details-bin", details)])
            context.abort(error.code, str(error))

    def many(request, context):
        yield from one(request, context)

    return many if stream else one


def _error_details(code, text, reason):
    """A google.rpc.Status with an ErrorInfo, for which Debian has no module."""
    def field(number, body):
        size, head = len(body), bytearray([number << 3 | 2])
        while size > 127:
            head.append(size & 127 | 128)
            size >>= 7
        return bytes(head + bytearray([size])) + body

    info = field(1, reason.encode()) + field(2, b"davit")
    detail = field(1, b"type.googleapis.com/google.rpc.ErrorInfo") + field(2, info)
    return bytes([1 << 3, code]) + field(2, text.encode()) + field(3, detail)


def _raw(service, method, answer):
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: answer())
    return grpc.method_handlers_generic_handler(service, {method: handler})


def _end(server):
    server.stop(1)  # returns at once; the answer is still sent
    return b""


def _certificate():
    """A key and a certificate for this process alone, and how the engine is told."""
    pem = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "-",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "36500"],
        check=True, capture_output=True).stdout
    begin = pem.index(b"-----BEGIN CERTIFICATE-----")
    key, certificate = pem[:begin], pem[begin:]
    der = base64.b64decode(b"".join(certificate.splitlines()[1:-1]))
    return key, certificate, base64.b64encode(der).decode().rstrip("=")


def _leave_with(pid):
    """Ends this process when the engine's has died, however it died."""
    try:
        engine = os.pidfd_open(pid)
    except ProcessLookupError:
        os._exit(0)
    if os.environ.get("DAVIT_PLUGIN_PARENT") and os.getppid() != pid:
        os._exit(0)  # it has died, and the number may be another's by now

    def wait():
        select.select([engine], [], [])
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
