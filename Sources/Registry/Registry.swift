// The client side of the OCI distribution specification.
//
//   Client/          RegistryClient: requests with authentication, manifests, referrers, blobs as origins of a download, uploads
//   Credentials/     auth files, credential helpers, logins, and the answers to a registry's challenges
//   Configuration/   registries.conf (endpoints, mirrors, short names), certs.d, proxies, storage.conf, policy.json
//   Errors/          RegistryError: a reason with values; all texts are in RegistryErrorText.swift
//
// A reference leads to its endpoints (EndpointFinder): the mirrors, then the registry. RegistrySession decides about TLS, certificates and proxies
// of each request, and HTTPClient sends it. The module knows no store: bytes leave it as `BlobOrigins` and `ImageSource`, and enter it as
// `ImageDestination`. Only the caller's verification decides whether they are right.
