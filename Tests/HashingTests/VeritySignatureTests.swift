import Glibc
import Testing

@testable import ComposefsHashing

/// The signer's messages, checked with openssl and fsverity-utils.
@Suite(.enabled("openssl is not installed") { shell("command -v openssl") == 0 }) struct VeritySignatureTests {
    static let kinds = [
        "rsa:2048", "rsa:4096", "ec -pkeyopt ec_paramgen_curve:P-256", "ec -pkeyopt ec_paramgen_curve:P-384 -sha384",
    ]

    private func id(_ algorithm: VerityAlgorithm) -> ObjectID {
        Array("hello world".utf8).withUnsafeBytes { VerityHasher.objectID(of: $0, algorithm) }
    }

    @Test func message() {
        let bytes = VeritySignature.message(for: id(.sha256))
        #expect(bytes.count == 12 + 32)
        #expect(Array(bytes.prefix(12)) == Array("FSVerity".utf8) + [1, 0, 32, 0])
        #expect(Array(bytes.dropFirst(12)) == id(.sha256).bytes)
        #expect(Array(VeritySignature.message(for: id(.sha512)).prefix(12)) == Array("FSVerity".utf8) + [2, 0, 64, 0])
    }

    @Test(arguments: kinds, VerityAlgorithm.allCases)
    func opensslVerifies(_ kind: String, _ algorithm: VerityAlgorithm) throws {
        let folder = try Folder()
        try folder.makeKey("a", kind)
        let signer = try folder.signer("a", "a")
        let signature = try signer.signature(of: id(algorithm))
        #expect(signature.count <= 1024)
        try folder.write("sig", signature)
        try folder.write("msg", VeritySignature.message(for: id(algorithm)))
        let verify = "smime -verify -binary -inform der -in sig -content msg -certfile a.crt -noverify -out out"
        #expect(folder.run("openssl \(verify)") == 0, "\(folder.log)")
        #expect(folder.run("openssl \(verify.replacing("smime", with: "cms"))") == 0, "\(folder.log)")
        // It contains neither content nor certificates, and no signed attributes, which the kernel refuses.
        #expect(folder.run("openssl cms -cmsout -print -inform der -in sig > out") == 0)
        let text = String(decoding: try folder.read("out"), as: UTF8.self)
        #expect(text.contains("eContent: <ABSENT>"))
        #expect(text.contains("signedAttrs:\n          <ABSENT>"))
        #expect(text.contains("certificates:\n      <ABSENT>"))
        // The signature is not valid for another digest.
        try folder.write("msg", VeritySignature.message(for: id(algorithm)).dropLast() + [0])
        #expect(folder.run("openssl \(verify)") != 0)
    }

    /// RSA signatures are deterministic, so fsverity-utils must produce the same bytes.
    @Test(.enabled("fsverity is not installed") { shell("command -v fsverity") == 0 }, arguments: VerityAlgorithm.allCases)
    func sameBytesAsFsverityUtils(_ algorithm: VerityAlgorithm) throws {
        let folder = try Folder()
        try folder.makeKey("a", "rsa:2048")
        try folder.write("file", Array("hello world".utf8))
        #expect(folder.run("fsverity sign file theirs --key a.key --cert a.crt --hash-alg=\(algorithm.name) --block-size=4096") == 0)
        #expect(try folder.read("theirs") == folder.signer("a", "a").signature(of: id(algorithm)))
    }

    @Test func derFiles() throws {
        let folder = try Folder()
        try folder.makeKey("a", "rsa:2048")
        #expect(folder.run("openssl pkey -in a.key -outform der -out b.key && openssl x509 -in a.crt -outform der -out b.crt") == 0)
        #expect(folder.run("cat a.key a.crt > both") == 0)
        let both = try folder.read("both")
        let expected = try folder.signer("a", "a").signature(of: id(.sha256))
        #expect(try folder.signer("b", "b").signature(of: id(.sha256)) == expected)
        #expect(try VerityKeySigner(key: both, certificate: both).signature(of: id(.sha256)) == expected)
    }

    @Test func refusedKeys() throws {
        let folder = try Folder()
        try folder.makeKey("a", "rsa:2048")
        try folder.makeKey("b", "rsa:2048")
        try folder.makeKey("e", "ed25519")
        #expect(folder.run("openssl pkey -in a.key -aes128 -passout pass:x -out locked.key") == 0)
        #expect(folder.run("openssl rsa -in a.key -traditional -aes128 -passout pass:x -out old.key") == 0)
        func fault(_ key: String, _ certificate: String) throws -> VeritySignatureError? {
            let (key, certificate) = (try folder.read(key), try folder.read(certificate))
            do throws(VeritySignatureError) {
                _ = try VerityKeySigner(key: key, certificate: certificate)
                return nil
            } catch {
                return error
            }
        }
        #expect(try fault("a.key", "a.crt") == nil)
        #expect(try fault("a.key", "b.crt") == .mismatch)
        #expect(try fault("locked.key", "a.crt") == .encryptedKey)
        #expect(try fault("old.key", "a.crt") == .encryptedKey)
        #expect(try fault("a.crt", "a.crt") == .noKey)
        #expect(try fault("a.key", "a.key") == .noCertificate)
        for text in ["", "x", "-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----\n"] {
            try folder.write("text", Array(text.utf8))
            #expect(try fault("text", "a.crt") == .noKey)
            #expect(try fault("a.key", "text") == .noCertificate)
        }
        let unusable = try fault("e.key", "e.crt")
        guard case .unusableKey? = unusable else {
            Issue.record("Ed25519: \(unusable.map { "\($0)" } ?? "accepted")")
            return
        }
    }

    @Test func manyThreads() async throws {
        let folder = try Folder()
        try folder.makeKey("a", "rsa:2048")
        let signer = try folder.signer("a", "a")
        let expected = try signer.signature(of: id(.sha512))
        let wanted = id(.sha512)
        await withTaskGroup(of: Bool.self) { group in
            for _ in 0..<64 { group.addTask { (try? signer.signature(of: wanted)) == expected } }
            for await isSame in group { #expect(isSame) }
        }
    }
}

/// The exit status of a shell command.
private func shell(_ command: String) -> Int32 {
    let status = system("{ \(command); } > /dev/null 2>&1 < /dev/null")
    return status & 0x7f == 0 ? (status >> 8) & 0xff : 128
}

/// A folder that is removed with the value.
private final class Folder {
    let path: String

    init() throws {
        var template = Array("/tmp/cfsoci-signature-XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { _ = shell("rm -r '\(path)'") }

    func run(_ command: String) -> Int32 { shell("cd '\(path)' && { \(command); } > log 2>&1") }

    var log: String { (try? read("log")).map { String(decoding: $0, as: UTF8.self) } ?? "" }

    func makeKey(_ name: String, _ kind: String) throws {
        let request = "openssl req -x509 -newkey \(kind) -nodes -keyout \(name).key -out \(name).crt -days 3650 -subj /CN=\(name)"
        try #require(run(request) == 0, "\(log)")
    }

    func signer(_ key: String, _ certificate: String) throws -> VerityKeySigner {
        try VerityKeySigner(key: try read(key + ".key"), certificate: try read(certificate + ".crt"))
    }

    func write(_ name: String, _ bytes: some Collection<UInt8>) throws {
        let file = try #require(fopen(path + "/" + name, "w"))
        defer { fclose(file) }
        try #require(fwrite(Array(bytes), 1, bytes.count, file) == bytes.count)
    }

    func read(_ name: String) throws -> [UInt8] {
        let file = try #require(fopen(path + "/" + name, "r"))
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 1 << 16)
        bytes.removeLast(bytes.count - fread(&bytes, 1, bytes.count, file))
        return bytes
    }
}
