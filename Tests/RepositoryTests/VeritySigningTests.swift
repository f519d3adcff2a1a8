import ComposefsBytes
import ComposefsEROFS
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem
import Glibc
import Testing

@testable import ComposefsRepository

/// Built-in signatures, as the kernel sees them. As root on a kernel that checks them, in a directory with fs-verity: keys go into the
/// kernel's keyring, and stay there until it is shut down.
@Suite(
    .serialized,
    .enabled("no kernel that checks fs-verity signatures, or not root (CFSOCI_TEST_VERITY_DIR names a directory with fs-verity)") {
        Host.environment("CFSOCI_TEST_VERITY_DIR") != nil && Host.veritySignatures() != .unchecked && Host.effectiveUserID == 0
            && shell("command -v keyctl && command -v openssl") == 0
    }) struct VeritySigningTests
{
    /// A key that the kernel knows, and one that it does not.
    struct Keys {
        static let shared = Result { try Keys() }

        let folder: ByteString
        let known: VerityKeySigner
        let unknown: VerityKeySigner

        init() throws {
            let folder = "/tmp/cfsoci-keys-" + ByteString(Host.randomName())
            try FileDescriptor.makeDirectory(folder, mode: 0o700)
            for name in ["known", "unknown"] {
                let files = "-keyout \(folder)/\(name).key -out \(folder)/\(name).crt"
                try #require(shell("openssl req -x509 -newkey rsa:2048 -nodes \(files) -days 3650 -subj /CN=\(name)") == 0)
            }
            let add = "openssl x509 -in \(folder)/known.crt -outform der | keyctl padd asymmetric '' %keyring:.fs-verity"
            try #require(shell(add) == 0, "the certificate cannot be added to the kernel's keyring")
            self.folder = folder
            known = try readSigner(keyFile: folder + "/known.key", certificateFile: folder + "/known.crt")
            unknown = try readSigner(keyFile: folder + "/unknown.key", certificateFile: folder + "/unknown.crt")
        }
    }

    private let keys: Keys

    init() throws {
        keys = try Keys.shared.get()
        try #require(shell("echo 0 > /proc/sys/fs/verity/require_signatures") == 0)
    }

    /// Runs with fs.verity.require_signatures = 1. Inodes that are in memory were looked at already: they are dropped.
    private func requiringSignatures(_ body: () throws -> Void) throws {
        defer { _ = shell("echo 0 > /proc/sys/fs/verity/require_signatures") }
        try #require(shell("sync; echo 1 > /proc/sys/fs/verity/require_signatures; echo 3 > /proc/sys/vm/drop_caches") == 0)
        #expect(Host.veritySignatures() == .required)
        try body()
    }

    private func create(_ scratch: Scratch, _ algorithm: VerityAlgorithm, signer: (any VeritySigner)?) throws -> Repository {
        try Repository.initialize(
            scratch.repository, RepositoryConfiguration(algorithm: algorithm), OpenOptions(signer: signer)
        ).repository
    }

    /// Objects by every way of storing, a stream and an image over them, published. All objects that there are.
    private func fill(_ scratch: Scratch, _ repository: Repository) throws -> [ObjectID] {
        let small = try repository.store(content(1000))
        var writer = try repository.makeObjectWriter()
        try writer.append(content(300_000, seed: 1))
        let large = try writer.finish()
        try FileDescriptor.makeDirectory(scratch.path + "/tree", mode: 0o755)
        try FileDescriptor.open(scratch.path + "/tree/file", [.writeOnly, .create]).writeAll(content(20_000, seed: 2))
        let tree = try repository.importDirectory(scratch.path + "/tree")
        let image = try repository.storeImage(try writeErofs(tree, version: .v1))
        let stream = try repository.storeStream(objects: [small, large])
        var publication = Repository.Publication()
        publication.stream("layer", stream.id)
        publication.streamReference("tag", to: "layer")
        publication.imageReference("image", image.id)
        try repository.publish(publication)
        return try [small.id, large.id, image.id, stream.id] + repository.imageObjects(image.id)
    }

    @Test(arguments: VerityAlgorithm.allCases)
    func everythingIsSigned(_ algorithm: VerityAlgorithm) throws {
        let scratch = try Scratch()
        let objects: [ObjectID]
        do {
            let repository = try create(scratch, algorithm, signer: keys.known)
            objects = try fill(scratch, repository)
            #expect(objects.count == 5)
            #expect(repository.signatureCounts.signed == 5)
            for id in objects { #expect(try repository.signature(ofObject: id) == keys.known.signature(of: id)) }
            // What is signed is not signed again.
            #expect(try !repository.store(content(1000)).isNew)
            try repository.signObjects(Set(objects))
            #expect(repository.signatureCounts.signed == 5)
        }
        try requiringSignatures {
            let repository = try scratch.open(OpenOptions(requireVerity: true))
            #expect(try repository.check().problems == [])
            for id in objects { _ = try repository.openObject(id) }
            _ = try repository.openImage("image")
            // Nothing can be stored without a key now.
            let refusal = failure { _ = try repository.store(content(5000)) }?.description
            #expect(refusal?.contains("require_signatures is 1") == true, "\(refusal ?? "")")
            // With a signature it can be opened, and is removed again.
            let signing = try scratch.open(OpenOptions(signer: keys.known))
            #expect(try signing.store(content(5000)).isNew)
        }
        #expect(try scratch.open().collectGarbage().objectsRemoved == 1)
    }

    @Test func unsignedObjectsAreRefusedAndExplained() throws {
        let scratch = try Scratch()
        var id: ObjectID?
        do {
            let repository = try create(scratch, .sha256, signer: keys.known)
            id = try fill(scratch, repository).first
        }
        let object = try #require(id)
        let path = "objects/" + ByteString(object.objectPath)
        do {
            // Another process replaces an object by an unsigned copy.
            let root = try scratch.directory()
            try root.unlink(at: path)
            #expect(try scratch.open().store(content(1000)).isNew)
        }
        try requiringSignatures {
            let refusal = failure { _ = try scratch.open().openObject(object) }?.description
            #expect(refusal?.contains("\(path): it has no fs-verity signature") == true, "\(refusal ?? "")")
            let problems = try scratch.open().check().problems.map(\.description)
            #expect(problems.count == 1 && problems.first?.contains("it has no fs-verity signature") == true, "\(problems)")
            // Stored again, signed, it is put right.
            #expect(try scratch.open(OpenOptions(signer: keys.known)).store(content(1000)).isNew)
            #expect(try scratch.open().check().problems == [])
        }
    }

    /// A repository that was made without a key: what is stored again is signed, and so is the rest on demand.
    @Test(arguments: VerityAlgorithm.allCases)
    func unsignedRepositoryBecomesSigned(_ algorithm: VerityAlgorithm) throws {
        let scratch = try Scratch()
        let objects: [ObjectID]
        do {
            let repository = try create(scratch, algorithm, signer: nil)
            objects = try fill(scratch, repository)
            for id in objects { #expect(try repository.signature(ofObject: id) == nil) }
            try repository.openObject(objects[3], verify: false).setExtendedAttribute("user.mark", "1")
        }
        try requiringSignatures {
            let refusal = failure { _ = try scratch.open() }?.description
            #expect(refusal?.contains("meta.json: it has no fs-verity signature") == true, "\(refusal ?? "")")
        }
        let before = try scratch.listing()
        do {
            let repository = try scratch.open(OpenOptions(signer: keys.known))
            #expect(try repository.store(content(1000)).isNew)
            #expect(try repository.signature(ofObject: objects[0]) == keys.known.signature(of: objects[0]))
            var writer = try repository.makeObjectWriter()
            try writer.append(content(300_000, seed: 1))
            #expect(try writer.finish().isNew)
            try repository.signObjects(Set(objects))
            #expect(repository.signatureCounts.signed == objects.count)
            try repository.publish(Repository.Publication())
        }
        #expect(try scratch.listing() == before)
        try requiringSignatures {
            let repository = try scratch.open(OpenOptions(requireVerity: true))
            #expect(try repository.check().problems == [])
            #expect(try repository.openObject(objects[3]).extendedAttribute("user.mark") == "1")
        }
    }

    @Test func unknownKeyIsExplained() throws {
        let scratch = try Scratch()
        let refusal = failure { _ = try create(scratch, .sha512, signer: keys.unknown) }?.description
        #expect(
            refusal?.contains("meta.json: the certificate of its fs-verity signature is not in the kernel's .fs-verity keyring") == true)
        #expect(refusal?.contains("keyctl padd asymmetric") == true, "\(refusal ?? "")")
        _ = try create(scratch, .sha512, signer: keys.known)
        let repository = try scratch.open(OpenOptions(signer: keys.unknown))
        let other = failure { _ = try repository.store(content(1000)) }?.description
        #expect(other?.contains("/objects/") == true && other?.contains("not in the kernel's .fs-verity keyring") == true, "\(other ?? "")")
        #expect(try scratch.listing().keys.filter { $0.hasPrefix("objects/") && $0.utf8.count > 12 } == [])
    }

    /// Signatures that came with an image.
    @Test func offeredSignatures() throws {
        let scratch = try Scratch()
        let repository = try create(scratch, .sha256, signer: nil)
        func id(_ bytes: [UInt8]) -> ObjectID { bytes.withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) } }
        let (good, strange, wrong, garbage) = (content(100), content(200), content(300), content(400))
        try repository.offerSignatures([
            id(good): keys.known.signature(of: id(good)), id(strange): keys.unknown.signature(of: id(strange)),
            id(wrong): keys.known.signature(of: id(good)), id(garbage): Array("no PKCS#7".utf8),
        ])
        #expect(try repository.store(good).isNew)
        #expect(try repository.signature(ofObject: id(good)) == keys.known.signature(of: id(good)))
        // Not known to the kernel: stored without. Again, it is here already.
        #expect(try repository.store(strange).isNew)
        #expect(try repository.signature(ofObject: id(strange)) == nil)
        #expect(try !repository.store(strange).isNew)
        #expect(repository.signatureCounts.signed == 1 && repository.signatureCounts.unknown == 2)
        let refusals = [wrong, garbage].map { bytes in failure { _ = try repository.store(bytes) }?.description ?? "" }
        #expect(refusals[0].contains("the kernel rejects its fs-verity signature"), "\(refusals[0])")
        #expect(refusals[1].contains("is no PKCS#7 message that the kernel takes"), "\(refusals[1])")
        #expect(try repository.objectSize(id(wrong)) == nil && repository.objectSize(id(garbage)) == nil)
        // The handle's own key takes precedence.
        let signing = try scratch.open(OpenOptions(signer: keys.known))
        signing.offerSignatures([id(wrong): Array("no PKCS#7".utf8)])
        #expect(try signing.store(wrong).isNew)
    }
}

/// Checks that need no such kernel.
@Suite(.enabled("openssl is not installed") { shell("command -v openssl") == 0 }) struct SignerTests {
    @Test func filesAreTriedFirst() throws {
        let scratch = try Scratch()
        for name in ["a", "b"] {
            let files = "-keyout \(scratch.path)/\(name).key -out \(scratch.path)/\(name).crt"
            try #require(shell("openssl req -x509 -newkey rsa:2048 -nodes \(files) -days 3650 -subj /CN=\(name)") == 0)
        }
        func fault(_ key: ByteString, _ certificate: ByteString) -> String? {
            failure { _ = try readSigner(keyFile: scratch.path + "/" + key, certificateFile: scratch.path + "/" + certificate) }?
                .description
        }
        #expect(fault("a.key", "a.crt") == nil)
        #expect(fault("a.key", "b.crt") == "\(scratch.path)/b.crt: the certificate does not belong to the private key")
        #expect(fault("a.crt", "a.crt") == "\(scratch.path)/a.crt: holds no private key in PEM or DER")
        #expect(fault("a.key", "a.key") == "\(scratch.path)/a.key: holds no X.509 certificate in PEM or DER")
        #expect(fault("c.key", "a.crt") == "open \(scratch.path)/c.key: No such file or directory")
        #expect(fault("a.key", ".")?.contains("Is a directory") == true)
    }

    @Test func nothingToSignWithoutVerity() throws {
        struct Nothing: VeritySigner {
            func signature(of id: ObjectID) throws(VeritySignatureError) -> [UInt8] { throw .failed("not to be called") }
        }
        let scratch = try Scratch()
        let configuration = RepositoryConfiguration(verity: .insecure)
        let options = OpenOptions(signer: Nothing())
        func fault(_ body: () throws -> Void) -> Bool {
            failure(body)?.description.hasSuffix("there is nothing that could be signed") == true
        }
        #expect(fault { _ = try Repository.initialize(scratch.repository, configuration, options) })
        _ = try Repository.initialize(scratch.repository, configuration)
        #expect(fault { _ = try scratch.open(options) })
    }
}

/// The exit status of a shell command.
private func shell(_ command: String) -> Int32 {
    let status = system("{ \(command); } > /dev/null 2>&1 < /dev/null")
    return status & 0x7f == 0 ? (status >> 8) & 0xff : 128
}
