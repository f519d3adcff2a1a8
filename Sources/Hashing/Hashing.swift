// Hashing: digests of content, computed with OpenSSL's libcrypto, and CRC-32C, computed with ISA-L.
//
// The module does no I/O: callers pass bytes and get values. It never asks the kernel for a digest; that is LinuxSystem's `measureVerity`.
//
// - `ContentDigest` and `DigestHasher` are OCI's digests (`sha256:…`) of blobs and documents.
// - `ObjectID` and `VerityHasher` are fs-verity digests, which name the objects of a repository. `BlockLanes` hashes several blocks of content at a time.
// - `ObjectIDList` and `ObjectIDTable` hold many identifiers of objects in little memory.
// - `VeritySigner` and `VerityKeySigner` sign fs-verity digests for the kernel's built-in signatures.
