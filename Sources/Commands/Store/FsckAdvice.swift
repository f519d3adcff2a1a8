import ComposefsCommandSupport
import ComposefsOCI

/// The next step for a damaged image, for fsck and for commands that fail because of the damage.
enum FsckAdvice {
    /// Faults that concern only EROFS images, which can be generated from the layers.
    private static let imageFaults: Set<String> = ["image-ref-missing", "image-object-missing", "image-link-missing"]
    /// Faults of the name itself.
    private static let nameFaults: Set<String> = ["invalid-ref-name", "ref-resolve-failed"]

    /// The next step for a tagged image with these kinds of faults.
    static func step(forTag name: ByteString, _ kinds: Set<String>, _ images: ImageStore) -> String {
        let shown = Output.printable(name)
        // Not a tag: the record of a referrer, or the stream of a layer.
        if name.hasPrefix(ReferrerRecord.prefix) {
            let parts = shown.split(separator: "/")
            guard parts.count == 3 else { return "remove the link streams/refs/\(shown)" }
            return "cfsoci referrers remove \(parts[1]) \(parts[2]), then cfsoci gc, then pull the image again with --referrers"
        }
        if name.hasPrefix(DiskRecord.prefix) {
            return "cfsoci fsck --repair makes the disk again; cfsoci prune --disks removes all of them"
        }
        if kinds == ["packing-mark-mismatch"] { return "the next export or push of the layer replaces the hint" }
        if name.hasPrefix("oci-layer-") || name.hasPrefix("oci-blob-") { return "cfsoci gc removes it, unless an image needs it" }
        if !kinds.isEmpty, kinds.isSubset(of: nameFaults) { return "cfsoci untag \(shown) removes the name" }
        if !kinds.isEmpty, kinds.isSubset(of: imageFaults) { return "cfsoci upgrade generates the EROFS images from the layers" }
        let from = images.isOriginKnown(name) ? "" : " --from REFERENCE"
        return "cfsoci fsck --repair \(shown)\(from) fetches it again"
    }

    /// The next step for an image that create-image created.
    static func step(forName name: ByteString) -> String {
        let shown = Output.printable(name)
        return
            "make it again from its directory (cfsoci create-image DIR \(shown)), or take it from another repository "
            + "(cfsoci fsck --repair \(shown) --from REPO)"
    }

    /// The next steps for faults of the repository itself: one line for each kind.
    ///
    /// - Parameter areImagesDamaged: whether the next steps for images are printed too, which repair their objects.
    static func steps(for problems: [FsckProblem], areImagesDamaged: Bool) -> [String] {
        var steps: [String] = []
        func add(_ step: String) { if !steps.contains(step) { steps.append(step) } }
        for problem in problems {
            let path = Output.printable(problem.path)
            switch problem.kind {
            case .strayFile, .unexpectedFileType, .objectInvalidName:
                add("\(path) is not part of a repository: examine it, then move or remove it")
            case .metadataParseFailed, .metadataDamaged, .metadataAlgorithmMismatch: add("cfsoci fsck --repair writes meta.json again")
            case .brokenSymlink where problem.path.hasPrefix("streams/refs/") || problem.path.hasPrefix("images/refs/"):
                if !areImagesDamaged { add("cfsoci fsck --repair --prune-dangling removes dangling references") }
            default:
                if !areImagesDamaged { add("cfsoci fsck --repair sets damaged files aside; cfsoci gc removes those that no image needs") }
            }
        }
        return steps
    }
}
