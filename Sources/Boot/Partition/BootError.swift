public import ComposefsBytes
public import ComposefsHashing

/// Why an image cannot be prepared for booting, or a deployment not be changed.
public enum BootError: Error, Sendable, CustomStringConvertible {
    /// The image has nothing that a machine can boot.
    case nothingToBoot
    /// The image has no kernel or entry of this name or path.
    case noSuchResource(ByteString)
    /// Something in the image cannot be booted: its path, and why.
    case resource(ByteString, BootResourceFault)
    /// An entry of the image has a line that is not understood: its path, and the key.
    case unsupportedKey(ByteString, key: ByteString)
    /// A unified kernel image has no argument that names an image.
    case unifiedWithoutImage(ByteString)
    /// A unified kernel image names another image; what it names, and the images for booting that are recorded.
    case unifiedNamesOther(ByteString, found: [ObjectID], expected: [ObjectID])
    /// A unified kernel image demands fs-verity, which the repository does not have.
    case unifiedDemandsVerity(ByteString)
    /// The arguments of a unified kernel image are inside it.
    case unifiedWithArguments(ByteString)
    /// Boot attempts of a unified kernel image with addons cannot be counted: boot loaders would look for the addons under a name with counters.
    case attemptsWithAddons(ByteString)
    /// A name that is no file name without suffix.
    case invalidName(ByteString)
    /// An argument of the kernel that cannot be written to an entry.
    case invalidArgument(ByteString)
    /// The file of an entry exists, and is not an entry of an image; or it is one with addons, which cannot be replaced at once.
    case entryExists(ByteString)
    /// The boot partition is too small: its path, and sizes in bytes.
    case noSpace(ByteString, needed: UInt64, available: UInt64)
    /// An entry or another file of the boot partition cannot be read, and why.
    case unreadable(ByteString, String)
    /// No boot partition was found in the usual places.
    case noPartition([ByteString])
    /// The directory for the state is not the one that holds the repository.
    case otherSysroot(ByteString, repository: ByteString)
    /// No deployment has this name, or several have it.
    case noDeployment(ByteString)
    case severalDeployments(ByteString, [ObjectID])
    /// A deployment that may not be removed.
    case deploymentIsBooted(ObjectID)
    case deploymentIsPinned(ObjectID)
    case deploymentIsLast(ObjectID)
    /// A deployment has data in a `/var` of its own.
    case deploymentHasData(ObjectID)
    /// A file system is mounted below a deployment's directory: the path.
    case deploymentHasMount(ObjectID, ByteString)
    /// A file in the local `/etc` of a deployment changed while it was copied, or its directory cannot be understood: the path.
    case etcChanged(ByteString)
    case etcDamaged(ByteString)
    /// The image of a deployment cannot be read, so its local changes to `/etc` cannot be told.
    case etcUnknown(ObjectID, cause: any Error)
    /// There is no other deployment with an entry.
    case nothingBefore
    /// A deployment has no entry on the boot partition.
    case noEntry(ObjectID)

    public var description: String {
        switch self {
        case .nothingToBoot: "the image has nothing to boot: no entry, no unified kernel image and no kernel with an initial RAM disk"
        case .noSuchResource(let name): "the image has no entry, unified kernel image or kernel \"\(name)\""
        case .resource(let path, let fault): "\(path) in the image cannot be booted: \(fault)"
        case .unsupportedKey(let path, let key): "\(path) in the image: its line \"\(key)\" is not supported"
        case .unifiedWithoutImage(let path): "\(path): the command line of this unified kernel image names no composefs image"
        case .unifiedNamesOther(let path, let found, let expected):
            "\(path): the command line of this unified kernel image names the image \(found.map(\.hex).joined(separator: ", ")), and not "
                + expected.map(\.hex).joined(separator: " or ")
        case .unifiedDemandsVerity(let path):
            "\(path): the command line of this unified kernel image demands fs-verity, which the repository does not have"
        case .unifiedWithArguments(let path): "\(path): kernel arguments cannot be added to a unified kernel image"
        case .attemptsWithAddons(let path): "\(path): attempts to boot a unified kernel image with addons cannot be counted"
        case .invalidName(let name): "\"\(name)\" is no name for an entry: it may have letters, digits, \".\", \"_\", \"-\""
        case .invalidArgument(let text): "the kernel argument \(text) cannot be part of an entry"
        case .entryExists(let path): "\(path) exists, and cannot be replaced"
        case .noSpace(let path, let needed, let available):
            "\(path) is too small: \(humanBytes(needed)) are needed, and \(humanBytes(available)) are free"
        case .unreadable(let path, let cause): "\(path): \(cause)"
        case .noPartition(let paths):
            "no boot partition with loader/entries or EFI/Linux: \(paths.map(\.description).joined(separator: ", "))"
        case .otherSysroot(let path, let repository): "\(path) is not the directory that holds the repository \(repository)"
        case .noDeployment(let name): "no deployment \"\(name)\""
        case .severalDeployments(let name, let ids): "\"\(name)\" means several deployments: \(ids.map(\.hex).joined(separator: ", "))"
        case .deploymentIsBooted(let id): "the deployment \(id.hex) is running"
        case .deploymentIsPinned(let id): "the deployment \(id.hex) is pinned"
        case .deploymentIsLast(let id): "the deployment \(id.hex) is the last one that can be booted"
        case .deploymentHasData(let id): "the deployment \(id.hex) has data in its own /var"
        case .deploymentHasMount(let id, let path): "a file system is mounted on \(path), in the deployment \(id.hex)"
        case .etcChanged(let path): "\(path) changed while it was copied"
        case .etcDamaged(let path): "\(path) is not what overlayfs keeps there"
        case .etcUnknown(let id, let cause):
            "the local changes to /etc cannot be told, because the image \(id.hex) cannot be read: \(cause)"
        case .nothingBefore: "there is no other deployment to boot"
        case .noEntry(let id): "the deployment \(id.hex) has no entry on the boot partition"
        }
    }
}
