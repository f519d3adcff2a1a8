import ComposefsBytes
import ComposefsCommandSupport
import ComposefsConfinement
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCI

/// `composefs-info`: what is in EROFS images of composefs (tools/composefs-info.c).
enum ImageInformation {
    static let rights = CommandRights(.none, reads: "images, files, base directory", capabilities: [.dacReadSearch])

    private static let usageLine = "usage: composefs-info [--basedir=path] [ls|objects|dump|missing-objects|measure-file] IMAGES..."

    private static let help = """
        \(usageLine)
          ls               the names in the images, with the object of each file and the target of each link
          objects          the objects of all images, sorted
          missing-objects  those that the directory of --basedir does not have
          dump             the images as dumpfiles, which mkcomposefs --from-file reads
          measure-file     the fs-verity digests of files
        Options:
          --basedir=PATH   the directory of the objects
          --filter=NAME    only this entry of the root directory; may be repeated
          --help, --version
        """

    private enum Task: String { case ls, objects, dump, missingObjects = "missing-objects", measureFile = "measure-file" }

    static func run(_ arguments: [ByteString]) throws {
        let options = try ToolOptions(arguments, flags: ["help", "version"], valued: ["basedir", "filter"], usage: usageLine)
        if options.has("help") { return try Output.print(help) }
        if options.has("version") { return try Output.print("composefs-info (cfsoci) \(Version.text)") }
        let filters = options.values("filter")
        for filter in filters where filter.bytes.contains(UInt8(ascii: "/")) {
            throw ToolError("--filter takes a single name, not \(filter)")
        }
        guard let word = options.operands.first else { throw ToolError.usage("no command specified", usageLine) }
        guard let task = word.utf8Text.flatMap(Task.init) else { throw ToolError.usage("unknown command \(word)", usageLine) }
        let paths = options.operands.dropFirst()
        guard !paths.isEmpty else {
            throw ToolError.usage(task == .measureFile ? "no files specified" : "no image path specified", usageLine)
        }
        let base = options.value("basedir")
        if task == .missingObjects, base == nil { throw ToolError.usage("missing-objects needs --basedir", usageLine) }
        if Sandbox.isWanted {
            _ = try Sandbox.apply(rights, repository: nil) { $0.readable += paths + (base.map { [$0] } ?? []) }
        }
        if task == .measureFile {
            for path in paths { try Output.print(try measure(path)) }
            return
        }
        var objects: Set<ObjectID> = []
        for path in paths {
            let image = try open(path)
            let text = ImageText(try named(path) { try image.tree() }, image.version, only: Set(filters))
            switch task {
            case .ls: try text.list { try Output.write($0) }
            case .dump: try text.dump { try Output.write($0) }
            case .objects, .missingObjects: objects.formUnion(text.objects())
            case .measureFile: break
            }
        }
        if task == .missingObjects, let base {
            let directory = try FileDescriptor.open(base, [.pathOnly, .directory])
            for object in objects.sorted() where try directory.statusIfPresent(at: ByteString(object.objectPath), follow: true) == nil {
                try Output.print(object.objectPath)
            }
        } else {
            for object in objects.sorted() { try Output.print(object.objectPath) }
        }
    }

    private static func open(_ path: ByteString) throws -> ErofsImage {
        let bytes = try FileDescriptor.open(path, .readOnly).readAll(limit: ErofsImage.maximumSize)
        return try named(path) { try ErofsImage(bytes) }
    }

    /// Errors of an image name no file.
    private static func named<Value>(_ path: ByteString, _ body: () throws -> Value) throws -> Value {
        do { return try body() } catch { throw ToolError("\(path): \(error)") }
    }

    /// The digest that the kernel has measured, or else that of the content.
    private static func measure(_ path: ByteString) throws -> String {
        let file = try FileDescriptor.open(path, .readOnly)
        do throws(SystemError) {
            if let measured = try file.measureVerity(), measured.algorithm == VerityAlgorithm.sha256.rawValue {
                return measured.digest.map { String(0x100 + Int($0), radix: 16).dropFirst() }.joined()
            }
        } catch {
            guard error.isUnsupported else { throw error }
        }
        guard try file.status().kind == .regular else { throw ToolError("\(path) is not a regular file") }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 16)
        defer { buffer.deallocate() }
        var hasher = VerityHasher(.sha256)
        while true {
            let count = try file.read(into: buffer)
            guard count > 0 else { return hasher.finalize().hex }
            hasher.update(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        }
    }
}
