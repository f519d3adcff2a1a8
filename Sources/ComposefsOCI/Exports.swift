// One import provides everything that the command uses. Modules with common names are not exported as a whole: of Concurrency, Compression
// and LinuxSystem, only the types in the interfaces of the other modules are.
@_exported public import ComposefsBoot
@_exported public import ComposefsBootFormats
@_exported public import ComposefsBytes
@_exported public import ComposefsConfinement
@_exported public import ComposefsDisks
@_exported public import ComposefsDumpfile
@_exported public import ComposefsEROFS
@_exported public import ComposefsExt4
@_exported public import ComposefsExtraction
@_exported public import ComposefsFileTree
@_exported public import ComposefsFuse
@_exported public import ComposefsHashing
@_exported public import ComposefsImageStore
@_exported public import ComposefsJSON
@_exported public import ComposefsMounting
@_exported public import ComposefsOCIModel
@_exported public import ComposefsRegistry
@_exported public import ComposefsRepository
@_exported public import ComposefsSignaturePolicy
@_exported public import ComposefsSnapshotFormat
@_exported public import ComposefsSplitStream
@_exported public import ComposefsTar
@_exported public import ComposefsTransfer
@_exported public import ComposefsTransports

@_exported public import enum ComposefsCompression.CompressionFormat
@_exported public import struct ComposefsConcurrency.Cancellation
@_exported public import struct ComposefsHTTPClient.HTTPError
@_exported public import enum ComposefsLinuxSystem.Capability
@_exported public import struct ComposefsLinuxSystem.FileDescriptor
@_exported public import struct ComposefsLinuxSystem.MountAttributes
@_exported public import enum ComposefsLinuxSystem.OwnershipFault
@_exported public import struct ComposefsLinuxSystem.ProcessIdentity
@_exported public import struct ComposefsLinuxSystem.SystemError
@_exported public import struct Logging.Logger
