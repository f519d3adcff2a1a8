import ArgumentParser
import ComposefsCommandSupport
import ComposefsOCI

struct Seal: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "seal", abstract: "Make an image state the fs-verity digest of its root file system.",
        discussion: """
            Stores a new config with the label containers.composefs.fsverity, the identifier of the EROFS image in format V1, and a new manifest \
            with the digests of its parts as annotations. Layers and EROFS images stay as they are, and so do their identifiers. So the digest of \
            the sealed image's manifest covers every byte that its mount shows.

            With a key, an artifact that refers to the sealed image has signatures for the kernel (PKCS#7) of the manifest, the config, the EROFS \
            image, with --bootable the image for booting, and the image of each layer. `cfsoci push` sends it with the image. If the layers' \
            compressed blobs are neither kept (`cfsoci pull --keep-blobs`) nor at the destination, push compresses them again; that changes the \
            manifest, and the signature of the manifest is lost.

            A tag that IMAGE names moves to the sealed image, unless another name is given.
            """)

    @Argument(help: "The image.", completion: .imageName)
    var image: ByteString

    @Argument(help: "The tag of the sealed image; by default the one that IMAGE names.")
    var name: ByteString?

    @Flag(help: "Also state the digest of the EROFS image of each layer alone, as an annotation of the layer.")
    var layers = false

    @Flag(help: "Also make the image for booting, record it and state its digest; see `cfsoci boot image`.")
    var bootable = false

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup(title: "Signing options") var signing: SigningOptions
    @OptionGroup var global: GlobalOptions

    func run() throws {
        var options = SealOptions(name: name)
        // Before the command loses the right to read the files.
        options.signer = try signing.signer()
        options.statesLayers = layers
        options.bootable = bootable
        try SealReport(image: global.openStore(Self.rights).seal(image, options), showsLayers: layers).show(asJSON: json)
    }
}

private struct SealReport: CommandReport {
    var image: SealedImage
    var showsLayers: Bool

    var lines: [String] {
        var lines = ["manifest  \(image.manifestDigest)", "config  \(image.configDigest)", "image  \(image.imageID.hex)"]
        if let id = image.bootImageID { lines.append("boot image  \(id.hex)") }
        if showsLayers { lines += (image.layerIDs ?? []).map { "layer  \($0.hex)" } }
        if let digest = image.signatureDigest { lines.append("signatures  \(digest)") }
        return lines + ["tagged  \(Output.printable(image.name))"]
    }

    var json: JSONValue {
        [
            "name": .string(image.name.jsonText), "manifestDigest": .string(image.manifestDigest.description),
            "configDigest": .string(image.configDigest.description), "imageId": .string(image.imageID.hex),
            "bootImageId": image.bootImageID.map { .string($0.hex) } ?? .null,
            "layerIds": .array((image.layerIDs ?? []).map { .string($0.hex) }), "signatureDigest": .text(image.signatureDigest),
        ]
    }
}
