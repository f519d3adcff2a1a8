// SnapshotFormat: the descriptor of a snapshot of a virtual machine's writable disk, `snapshot.json`, as microsandbox 0.6.7 to 0.6.18 write it and
// later releases read it.
//
// The module does no I/O. The same snapshot gives the same bytes, and their SHA-256 digest is its identity.
//
// - `SnapshotDescriptor` is a descriptor; it parses and writes the canonical document.
// - `UpperMerkleTree` computes the digest of the disk's content that a descriptor records. Holes cost nothing.
// - `Blake3Digest` is the digest that the tree is made of.
