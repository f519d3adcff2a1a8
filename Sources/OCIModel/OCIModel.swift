// OCIModel: the documents of OCI and docker images, references, platforms and limits.
//
// The module does no I/O: documents are parsed from bytes that a transport or the repository provides. It does not decide where an image
// comes from; Transports, Registry and Transfer do.
//
// - `Manifest`, `ImageIndex`, `ImageConfig` and `Descriptor` are the documents; `ManifestDocument` is a manifest or an index.
// - `MediaType`, `LayerMediaType` and `Platform` interpret their members; `Manifest.imageConfig(from:)` distinguishes images and artifacts.
// - `RegistryReference` is a parsed reference; `PullLimits` and `ImageLimits` bound sizes; `OCIError` is the reason for a refusal.
