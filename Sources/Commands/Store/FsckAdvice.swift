import ComposefsCommandSupport
import ComposefsOCI

/// What to do about a damaged image, said by fsck for each that it finds and by commands that meet one.
enum FsckAdvice {
    /// Faults that only concern EROFS images, which follow from the layers.
    private static let imageFaults: Set<String> = ["image-ref-missing", "image-object-missing", "image-link-missing"]
    /// Faults of the name, not of what it leads to.
    private static let nameFaults: Set<String> = ["invalid-ref-name", "ref-resolve-failed"]

    /// The next step for a tagged image with these kinds of faults.
    static func step(forTag name: ByteString, _ kinds: Set<String>) -> String {
        let shown = Output.printable(name)
        // What is no tag: a record of a referrer, or the stream of a layer.
        if name.hasPrefix("oci-referrers/") {
            let parts = shown.split(separator: "/")
            guard parts.count == 3 else { return "remove the link streams/refs/\(shown)" }
            return "cfsoci referrers remove \(parts[1]) \(parts[2]), then cfsoci gc, then pull the image again with --referrers"
        }
        if kinds == ["packing-mark-mismatch"] { return "the next export or push of the layer replaces the mark" }
        if name.hasPrefix("oci-layer-") || name.hasPrefix("oci-blob-") { return "cfsoci gc removes it, unless an image needs it" }
        if !kinds.isEmpty, kinds.isSubset(of: nameFaults) { return "cfsoci untag \(shown) removes the name" }
        if !kinds.isEmpty, kinds.isSubset(of: imageFaults) { return "cfsoci upgrade makes the EROFS images anew from the layers" }
        return "cfsoci rm \(shown), then cfsoci gc, then pull it again: \(pull(name))"
    }

    /// The next step for an image that create-image made.
    static func step(forName name: ByteString) -> String {
        let shown = Output.printable(name)
        return "cfsoci untag \(shown), then cfsoci gc, then make it again: cfsoci create-image DIR \(shown)"
    }

    /// A tag that is a registry's reference tells what to pull; else only the user knows where the image came from.
    private static func pull(_ name: ByteString) -> String {
        let shown = Output.printable(name)
        guard let text = name.utf8Text, let reference = try? RegistryReference(parsing: text), reference.canonical == text else {
            return "cfsoci pull REFERENCE \(shown)"
        }
        return "cfsoci pull \(shown)"
    }
}
