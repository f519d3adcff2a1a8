import ComposefsBootFormats
import ComposefsBytes
import ComposefsHashing

/// The mounts that make the root file system, in their order. It follows from the kernel argument and the configuration alone.
struct RootPlan: Equatable {
    enum Step: Equatable {
        /// The image, read-only.
        case image(ObjectID)
        /// A writable overlay of the image, whose changes are in memory.
        case transientRoot
        /// The disk, at `/sysroot` of the image, if it has that directory.
        case disk
        /// A directory of the image, as the configuration says.
        case directory(ByteString, SetupRootConfiguration.Kind)
        /// All of it takes the place of the disk.
        case replacement
    }

    let image: ComposefsArgument
    let steps: [Step]

    init(_ image: ComposefsArgument, _ configuration: SetupRootConfiguration) {
        self.image = image
        var steps = [Step.image(image.id)]
        if configuration.isRootTransient { steps.append(.transientRoot) }
        steps.append(.disk)
        for (name, kind) in [("etc", configuration.etc), ("var", configuration.var)] as [(ByteString, SetupRootConfiguration.Kind)] {
            // In a root in memory, every directory is in memory.
            guard kind != .none, kind != .transient || !configuration.isRootTransient else { continue }
            steps.append(.directory(name, kind))
        }
        self.steps = steps + [.replacement]
    }

    /// The directory of the deployment, below that of the disk.
    var deployment: ByteString { ByteString("state/deploy/\(image.id.hex)") }
}
