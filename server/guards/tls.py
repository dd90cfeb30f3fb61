"""Encryption: certificates from files, read again when they change."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import grpc

log = logging.getLogger("pointsman.tls")


class TlsError(Exception):
    """The certificates cannot be used; the message says why."""


class Certificates:
    """A certificate chain, its key and, if callers must show one too, the roots of theirs: files in PEM form.

    Raises ``TlsError`` if they cannot be read or do not belong together.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._known = self._read()
        self._warned = ""

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials that follow the files: every new connection is shown what they hold then."""
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._known),
            self._changed,  # type: ignore[arg-type]  # None, for no change, is allowed
            require_client_authentication=self._client_ca is not None,
        )

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """What is new, or ``None``. Called by gRPC for every handshake, from threads of its own."""
        try:
            now = self._contents()
            if now == self._known:
                self._warned = ""
                return None
            self._check(now)
        except (OSError, TlsError) as error:
            if str(error) != self._warned:  # once, not for every connection that somebody opens
                self._warned = str(error)
                log.warning("the certificates stay as they were: %s", error)
            return None
        self._known, self._warned = now, ""
        log.info("read the certificates anew")
        return _configuration(now)

    def _read(self) -> tuple[bytes, bytes, bytes | None]:
        try:
            found = self._contents()
        except OSError as error:
            raise TlsError(f"cannot read a certificate or key: {error}") from error
        self._check(found)
        return found

    def _contents(self) -> tuple[bytes, bytes, bytes | None]:
        roots = None if self._client_ca is None else self._client_ca.read_bytes()
        return self._cert.read_bytes(), self._key.read_bytes(), roots

    def _check(self, contents: tuple[bytes, bytes, bytes | None]) -> None:
        """Raises ``TlsError`` if the files do not belong together, or are not ``contents`` any more.

        OpenSSL reads the files itself: one that is written meanwhile would let pass what it has not seen.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._cert, self._key, password=lambda: "")
        except (ssl.SSLError, OSError, ValueError) as error:
            raise TlsError(f"{self._cert} and {self._key} are not a certificate and its key: {error}") from error
        if self._client_ca is not None:
            try:
                context.load_verify_locations(self._client_ca)
            except (ssl.SSLError, OSError) as error:
                raise TlsError(f"{self._client_ca} is not a certificate: {error}") from error
        try:
            same = self._contents() == contents
        except OSError as error:
            raise TlsError(f"cannot read a certificate or key: {error}") from error
        if not same:
            raise TlsError(f"{self._cert} or {self._key} is being written")


def _configuration(contents: tuple[bytes, bytes, bytes | None]) -> grpc.ServerCertificateConfiguration:
    cert, key, roots = contents
    return grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=roots)
