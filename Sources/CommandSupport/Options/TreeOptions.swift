package import ArgumentParser
package import ComposefsOCI

/// How the tree of an image is made before it is shown or identified.
package struct TreeOptions: ParsableArguments {
    @Flag(help: "Use the tree for booting: /boot and /sysroot empty, SELinux labels from the image's own policy.")
    package var bootable = false

    @Option(help: ArgumentHelp("Which extended attributes are kept.", valueName: "allowlist-only|keep-user-xattrs"))
    package var xattrs: XattrMode = .allowlistOnly

    package init() {}

    package func tree(ofImage text: ByteString, in store: Store) throws -> FileTree {
        switch try store.images.find(text) {
        case .tagged(_, let image):
            return bootable ? try store.images.bootTree(of: image, xattrs.filtering) : try store.images.tree(of: image, xattrs.filtering)
        case .named(let image):
            guard !bootable else {
                throw CommandError("\(text) was made from a directory: it can be booted if create-image made it with --bootable")
            }
            return try store.images.erofsImage(image.imageID).tree()
        }
    }
}

package enum XattrMode: String, ExpressibleByArgument, CaseIterable {
    case allowlistOnly = "allowlist-only"
    case keepUserXattrs = "keep-user-xattrs"

    package var filtering: XattrFiltering {
        switch self {
        case .allowlistOnly: .allowlistOnly
        case .keepUserXattrs: .keepUserXattrs
        }
    }
}

/// `--erofs-version`, checked.
package struct VersionOption: ParsableArguments {
    @Option(help: ArgumentHelp("EROFS format 0, 1 or 2; by default that of the repository.", valueName: "n"))
    package var erofsVersion: Int?

    package init() {}

    package func version(default fallback: ErofsVersion) throws -> ErofsVersion {
        try erofsVersion.map(Self.version(numbered:)) ?? fallback
    }

    package static func version(numbered number: Int) throws -> ErofsVersion {
        guard let raw = UInt32(exactly: number), let version = ErofsVersion(rawValue: raw) else {
            throw ValidationError("--erofs-version takes 0, 1 or 2, not \(number)")
        }
        return version
    }
}

/// The identifier of a tree's image.
package func imageID(of tree: FileTree, _ version: ErofsVersion, _ algorithm: VerityAlgorithm) throws -> ObjectID {
    try ErofsPlan(tree, version: version).identifier(algorithm)
}
