"""The books of a network driver in Python: networks, endpoints and their addresses."""

import ipaddress
import json
import os
import subprocess
import threading

from davit_plugin import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, NotImplementedByDriver, ResourceExhausted
from davit.network.v1 import network_pb2
from google.protobuf import json_format


def parse(kind, text, what):
    """Makes something of what a user wrote; InvalidArgument says what it was."""
    try:
        return kind(text)
    except ValueError as error:
        raise InvalidArgument(f"{what}: {error}")


class Networks:
    """Keeps the books of networks with IPv4 and one pool each.

    A driver inherits from it and makes and removes what they are in the kernel, with
    the methods below, which are called one at a time. What is in the books is in one
    file, which is written whole: the answer of List as JSON.
    """

    base = "10.96.0.0/16"  # networks without a subnet get a /24 of it

    def make_network(self, network):
        """Makes a network, of which a crash may have left something."""
        raise NotImplementedError

    def remove_network(self, network_id):
        """Removes a network, which may not be there."""
        raise NotImplementedError

    def plug(self, endpoint):
        """Puts an endpoint's interface into its namespace, or nothing at all."""
        raise NotImplementedError

    def unplug(self, endpoint_id):
        """Removes an endpoint's interface, which may be gone with its namespace."""
        raise NotImplementedError

    def route(self, endpoint, wanted):
        """Makes or removes the default route by endpoint.gateway4; both may be done."""
        raise NotImplementedError

    def restore(self, networks, endpoints):
        """Removes what is of this engine and of none of these, and makes what is
        missing of them."""
        raise NotImplementedError

    def configure(self, setup):
        self.setup = setup
        self.base = parse(ipaddress.IPv4Network, setup.config.get("base", self.base), 'key "base"')
        if self.base.prefixlen > 24:
            raise InvalidArgument('key "base": it has to have room for a /24')
        self.file = os.path.join(setup.root, "state.json")
        self.lock = threading.Lock()
        self.networks, self.endpoints = {}, {}
        if os.path.exists(self.file):
            with open(self.file) as f:
                state = json_format.Parse(f.read(), network_pb2.ListResponse())
            self.networks = {network.id: network for network in state.networks}
            self.endpoints = {endpoint.endpoint_id: endpoint for endpoint in state.endpoints}

    def state(self):
        return network_pb2.ListResponse(networks=self.networks.values(), endpoints=self.endpoints.values())

    def save(self):
        with open(self.file + ".new", "w") as f:
            f.write(json_format.MessageToJson(self.state()))
            f.flush()
            os.fsync(f.fileno())
        os.rename(self.file + ".new", self.file)

    def List(self, _):
        with self.lock:
            return self.state()

    def CreateNetwork(self, request):
        network = request.network
        with self.lock:
            if network.id not in self.networks:
                for option in network.options:
                    raise InvalidArgument(f'network option "{option}" is not known')
                if network.ipv6:
                    raise NotImplementedByDriver("this driver has no IPv6")
                if not network.ipv4 or len(network.pools) > 1:
                    raise InvalidArgument("a network of this driver has IPv4 and one pool")
                self.choose(network)
                self.make_network(network)
                self.networks[network.id] = network
                self.save()
            return network_pb2.CreateNetworkResponse(network=self.networks[network.id])

    def choose(self, network):
        """Fills in the pool: what the user said, or what is free."""
        used = [ipaddress.ip_network(other.pools[0].subnet) for other in self.networks.values()]
        if network.pools:
            pool = network.pools[0]
            subnet = parse(ipaddress.IPv4Network, pool.subnet, "subnet")
            if any(subnet.overlaps(other) for other in used):
                raise InvalidArgument("Pool overlaps with other one on this address space")
            if pool.range and not parse(ipaddress.IPv4Network, pool.range, "range").subnet_of(subnet):
                raise InvalidArgument(f"range {pool.range} is not in {subnet}")
            for address in [*pool.aux.values(), *filter(None, [pool.gateway])]:
                if parse(ipaddress.IPv4Address, address, "address") not in subnet:
                    raise InvalidArgument(f"address {address} is not in {subnet}")
        else:
            out = subprocess.run(["ip", "-json", "route"], check=True, capture_output=True).stdout
            used += [ipaddress.ip_network(route["dst"]) for route in json.loads(out or "[]") if route["dst"] != "default"]
            free = (s for s in self.base.subnets(new_prefix=24) if not any(s.overlaps(other) for other in used))
            subnet = next(free, None)
            if subnet is None:
                raise ResourceExhausted(f"no subnet of {self.base} is free")
            pool = network.pools.add(subnet=str(subnet))
        if not pool.gateway:
            pool.gateway = str(self.free_address(network))

    def DeleteNetwork(self, request):
        with self.lock:
            if any(endpoint.network_id == request.id for endpoint in self.endpoints.values()):
                raise FailedPrecondition(f"network {request.id} has endpoints")
            self.forget_network(request.id)
        return network_pb2.DeleteNetworkResponse()

    def forget_network(self, network_id):
        self.remove_network(network_id)
        if self.networks.pop(network_id, None):
            self.save()

    def taken(self, network):
        pool = network.pools[0]
        addresses = {*pool.aux.values(), pool.gateway}
        return addresses | {e.ipv4.split("/")[0] for e in self.endpoints.values() if e.network_id == network.id}

    def free_address(self, network):
        taken = self.taken(network)
        subnet = ipaddress.ip_network(network.pools[0].subnet)
        for address in ipaddress.ip_network(network.pools[0].range or subnet):
            if str(address) not in taken and address not in (subnet.network_address, subnet.broadcast_address):
                return address
        raise ResourceExhausted(f"no address of {subnet} is free")

    def Attach(self, request):
        wanted = request.attachment
        with self.lock:
            network = self.networks.get(wanted.network_id)
            if network is None:
                raise NotFound(f"network {wanted.network_id} is not there")
            known = self.endpoints.get(wanted.endpoint_id)
            if known and known.netns == wanted.netns:
                return network_pb2.AttachResponse(endpoint=known)
            if known:
                self.forget_endpoint(known.endpoint_id)
            endpoint = self.endpoint(network, wanted)
            self.plug(endpoint)
            try:
                if endpoint.gateway4:
                    self.route(endpoint, wanted.gateway4)
                self.endpoints[endpoint.endpoint_id] = endpoint
                self.save()
            except Exception:
                self.endpoints.pop(endpoint.endpoint_id, None)
                self.unplug(endpoint.endpoint_id)
                raise
            return network_pb2.AttachResponse(endpoint=endpoint)

    def endpoint(self, network, wanted):
        """Describes an endpoint that is to be, with addresses that are free."""
        address, subnet = wanted.ipv4, ipaddress.ip_network(network.pools[0].subnet)
        if not address:
            address = str(self.free_address(network))
        elif parse(ipaddress.IPv4Address, address, "address") not in subnet:
            raise InvalidArgument(f"address {address} is not in {subnet}")
        elif address in self.taken(network):
            raise AlreadyExists(f"address {address} is taken")
        mac = "02:42:" + ":".join(f"{byte:02x}" for byte in ipaddress.ip_address(address).packed)
        return network_pb2.Endpoint(
            network_id=network.id, endpoint_id=wanted.endpoint_id, container_id=wanted.container_id,
            netns=wanted.netns, interface=wanted.interface, ipv4=f"{address}/{subnet.prefixlen}",
            mac=wanted.mac or mac, gateway4="" if network.internal else network.pools[0].gateway)

    def Detach(self, request):
        with self.lock:
            self.forget_endpoint(request.endpoint_id)
        return network_pb2.DetachResponse()

    def forget_endpoint(self, endpoint_id):
        self.unplug(endpoint_id)
        if self.endpoints.pop(endpoint_id, None):
            self.save()

    def find(self, endpoint_id):
        if endpoint_id not in self.endpoints:
            raise NotFound(f"endpoint {endpoint_id} is not there")
        return self.endpoints[endpoint_id]

    def UpdatePorts(self, request):
        with self.lock:
            self.find(request.endpoint_id)
        return network_pb2.UpdatePortsResponse()  # without the feature none are published

    def SetGateway(self, request):
        with self.lock:
            endpoint = self.find(request.endpoint_id)
            if endpoint.gateway4:
                self.route(endpoint, request.gateway4)
        return network_pb2.SetGatewayResponse()

    def Reconcile(self, request):
        with self.lock:
            for endpoint in list(self.endpoints.values()):
                if endpoint.endpoint_id not in request.endpoint_ids or endpoint.network_id not in request.network_ids:
                    self.forget_endpoint(endpoint.endpoint_id)
            for network_id in list(self.networks):
                if network_id not in request.network_ids:
                    self.forget_network(network_id)
            self.restore(list(self.networks.values()), list(self.endpoints.values()))
        return network_pb2.ReconcileResponse()
