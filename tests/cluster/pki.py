"""Certificates of a test cluster: one authority, and what it signs. Elliptic-curve keys, valid for a week."""

import dataclasses
import datetime
import ipaddress
import json
import pathlib
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ADMINS = "system:masters"
LIFETIME = datetime.timedelta(days=7)


@dataclasses.dataclass(frozen=True)
class Authority:
    """A certificate authority that leaves its files in `folder`."""

    folder: pathlib.Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def file(self) -> pathlib.Path:
        """The authority's certificate."""
        return self.folder / "ca.crt"

    def client(self, name: str, user: str, group: str = "") -> tuple[pathlib.Path, pathlib.Path]:
        """Certificate and key with which a client is `user` of `group`."""
        return self._issue(name, user, group, ExtendedKeyUsageOID.CLIENT_AUTH, [])

    def server(self, name: str, user: str, hosts: Sequence[str], group: str = "") -> tuple[pathlib.Path, pathlib.Path]:
        """Certificate and key of a server that is reached by `hosts` (names and addresses)."""
        return self._issue(name, user, group, ExtendedKeyUsageOID.SERVER_AUTH, hosts)

    def _issue(
        self, name: str, user: str, group: str, usage: x509.ObjectIdentifier, hosts: Sequence[str]
    ) -> tuple[pathlib.Path, pathlib.Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_subject(user, group), self.certificate.subject, key.public_key())
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(h) for h in hosts]), critical=False)
        _write(self.folder / f"{name}.crt", builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        write_key(self.folder / f"{name}.key", key)
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"


def authority(folder: pathlib.Path) -> Authority:
    """A new authority; its certificate is `ca.crt` in `folder`, its key stays in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject("pathoscale-test", "")
    builder = _builder(subject, subject, key.public_key()).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    made = Authority(folder, certificate, key)
    _write(made.file, certificate.public_bytes(serialization.Encoding.PEM))
    return made


def write_key(path: pathlib.Path, key: ec.EllipticCurvePrivateKey) -> None:
    """A private key as a PEM file only its owner reads."""
    _write(
        path, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    )


def token_key(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Public and private key for service account tokens."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    _write(folder / "tokens.pub", public)
    write_key(folder / "tokens.key", key)
    return folder / "tokens.pub", folder / "tokens.key"


def kubeconfig(path: pathlib.Path, server: str, authority_file: pathlib.Path, user: dict[str, str]) -> pathlib.Path:
    """A kubeconfig (JSON is YAML) for one server and one user, such as {"token": ...}."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": str(authority_file)}}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    _write(path, json.dumps(config, indent=1).encode())
    return path


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
    )


def _subject(user: str, group: str) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(path: pathlib.Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
