import ComposefsBytes
import ComposefsHashing
import ComposefsTestSupport
import Glibc
import Testing

@testable import ComposefsSignaturePolicy

func policy(_ text: String) throws(SignaturePolicyFault) -> ImagePolicy { try ImagePolicy(parsing: Array(text.utf8)) }

/// The fault of a policy that is refused.
func fault(_ text: String, sourceLocation: SourceLocation = #_sourceLocation) -> SignaturePolicyFault? {
    do throws(SignaturePolicyFault) {
        _ = try policy(text)
        Issue.record("accepted: \(text)", sourceLocation: sourceLocation)
        return nil
    } catch {
        return error
    }
}

/// Keys and signatures that the program `openssl` makes, in a folder of its own.
final class OpenSSL: Sendable {
    private let folder: TestFolder
    private let path: String

    init() throws {
        folder = try TestFolder("cfsoci-policy")
        path = folder.path.description
    }

    static var isInstalled: Bool { system("command -v openssl > /dev/null") == 0 }

    private func run(_ command: String) throws {
        let status = system("cd '\(path)' && { \(command); } > log 2>&1")
        let log = String(decoding: try read("log"), as: UTF8.self)
        try #require(status == 0, "\(command): \(log)")
    }

    private func write(_ name: String, _ bytes: [UInt8]) throws {
        let file = try #require(fopen(path + "/" + name, "w"))
        defer { fclose(file) }
        try #require(fwrite(bytes, 1, bytes.count, file) == bytes.count)
    }

    private func read(_ name: String) throws -> [UInt8] {
        let file = try #require(fopen(path + "/" + name, "r"))
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 1 << 16)
        bytes.removeLast(bytes.count - fread(&bytes, 1, bytes.count, file))
        return bytes
    }

    /// Makes a private key; returns the public one in PEM. `kind` has the options of `openssl genpkey`.
    func makeKey(_ name: String, _ kind: String = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256") throws -> [UInt8] {
        try run("openssl genpkey \(kind) -out \(name).key && openssl pkey -in \(name).key -pubout -out \(name).pub")
        return try read(name + ".pub")
    }

    /// The signature as cosign makes it: over SHA-256, or for Ed25519 over the message itself.
    func sign(_ message: [UInt8], _ key: String) throws -> [UInt8] {
        try write("message", message)
        try run(
            "if openssl pkey -in \(key).key -text -noout | grep ED25519 > /dev/null; then openssl pkeyutl -sign -rawin -inkey \(key).key -in message -out sig;"
                + " else openssl dgst -sha256 -sign \(key).key -out sig message; fi")
        return try read("sig")
    }
}

/// The document that cosign signs.
func claim(_ manifest: [UInt8], _ reference: String, optional: String = "null") -> [UInt8] {
    Array(
        (#"{"critical":{"identity":{"docker-reference":"\#(reference)"},"image":{"docker-manifest-digest":"\#(ContentDigest.of(manifest))"},"#
            + #""type":"cosign container image signature"},"optional":\#(optional)}"#).utf8)
}
