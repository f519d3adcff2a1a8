// Transports: sources and destinations of images other than registries, and the interface that registries share with them.
//
// The module verifies no content from a source; the caller compares size and digest with the descriptor. It knows neither the network nor
// the repository: Registry implements its protocols for registries, and Transfer moves images between them and the store.
//
// - `ImageSource` and `ImageDestination` are the two ends of a pull and a push; `BlobReader` reads one blob.
// - `ImageReference` is a parsed reference with its transport; `ImageLocation` is a path with the name of an image in it.
// - `LayoutSource`, `DockerArchiveSource`, `DirectorySource` and `StorageSource` read images; `LayoutDestination` and `ArchiveDestination`
//   write them.
// - `BlobDownload` is the one way to read a blob, from a partial blob and from `BlobOrigins`. `RetryBudget` decides about retries.
// - `resolveManifest` selects the manifest for a platform from an index.
