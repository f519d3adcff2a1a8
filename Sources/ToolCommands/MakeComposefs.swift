import ComposefsBytes
import ComposefsCommandSupport
import ComposefsConfinement
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCI

/// `mkcomposefs`: an EROFS image of a directory or a dumpfile, and its digest (tools/mkcomposefs.c).
enum MakeComposefs {
    /// CAP_SYS_ADMIN: without it, the kernel hides extended attributes whose names begin with `trusted.`, and the image would be another one.
    static let rights = CommandRights(
        .none, reads: "directory or dumpfile", writes: "image, digest store",
        capabilities: [.dacOverride, .dacReadSearch, .fileOwner, .systemAdmin])

    private static let usageLine = "Usage: mkcomposefs [OPTIONS] SOURCE IMAGE"

    private static var help: String {
        """
        \(usageLine)
        Options:
          --digest-store=PATH   Store content files in this directory
          --use-epoch           Make all mtimes zero
          --skip-devices        Don't store device nodes
          --skip-xattrs         Don't store file xattrs
          --user-xattrs         Only store user.* xattrs
          --hardlinks           Keep hard links; without it, every name is a file of its own
          --print-digest        Print the digest of the image
          --print-digest-only   Print the digest of the image, don't write image
          --from-file           The source is a dump file, not a directory; - is standard input
          --min-version=N       Use this minimal format version (default=0)
          --max-version=N       Use this maximum format version (default=1)
          --threads=N           Use this many threads to read files (default=\(Host.processorCount))
          --help, --version
        IMAGE is a file, or - for standard output.
        """
    }

    private struct Invocation {
        var source: ByteString
        /// Nil if only the digest is printed.
        var image: ByteString?
        var store: ByteString?
        var isDumpfile = false
        var printsDigest = false
        var changes = TreeChanges()
        var versions = 0...1
        var threads: Int?
    }

    static func run(_ arguments: [ByteString]) throws {
        let options = try ToolOptions(
            arguments,
            flags: [
                "use-epoch", "skip-devices", "skip-xattrs", "user-xattrs", "hardlinks", "print-digest", "print-digest-only", "from-file",
                "help", "version",
            ], valued: ["digest-store", "min-version", "max-version", "threads"], usage: usageLine)
        if options.has("help") { return try Output.print(help) }
        if options.has("version") { return try Output.print("mkcomposefs (cfsoci) \(Version.text)") }
        try make(try invocation(options))
    }

    private static func invocation(_ options: ToolOptions) throws -> Invocation {
        let onlyPrints = options.has("print-digest-only")
        guard let source = options.operands.first else { throw ToolError.usage("no source path specified", usageLine) }
        guard !source.isEmpty else { throw ToolError("the source path is empty") }
        guard options.operands.count <= 2 else { throw ToolError.usage("too many arguments", usageLine) }
        if onlyPrints, options.operands.count == 2 {
            throw ToolError.usage("--print-digest-only writes no image: leave \(options.operands[1]) out", usageLine)
        }
        if !onlyPrints, options.operands.count == 1 { throw ToolError.usage("no destination path specified", usageLine) }
        var found = Invocation(source: source)
        found.image = onlyPrints ? nil : options.operands[1]
        found.store = options.value("digest-store")
        found.isDumpfile = options.has("from-file")
        found.printsDigest = onlyPrints || options.has("print-digest")
        found.changes.usesEpoch = options.has("use-epoch")
        found.changes.skipsDevices = options.has("skip-devices")
        found.changes.keepsHardLinks = options.has("hardlinks")
        switch (options.has("skip-xattrs"), options.has("user-xattrs")) {
        case (true, true): throw ToolError("--skip-xattrs and --user-xattrs exclude each other")
        case (true, false): found.changes.attributes = .none
        case (false, true): found.changes.attributes = .user
        case (false, false): break
        }
        found.versions = try versions(options)
        found.threads = try options.number("threads")
        if let threads = found.threads, threads <= 0 { throw ToolError("--threads takes a number above 0, not \(threads)") }
        return found
    }

    /// The lowest version, and the highest that the tree may need. One option alone means that of the C tool: the other is 0, or the same.
    private static func versions(_ options: ToolOptions) throws -> ClosedRange<Int> {
        let (lowest, highest) = (try options.number("min-version"), try options.number("max-version"))
        for (name, number) in [("min-version", lowest), ("max-version", highest)] {
            if let number, !(0...1).contains(number) { throw ToolError("--\(name) takes 0 or 1, not \(number)") }
        }
        if lowest == nil, highest == nil { return 0...1 }
        return (lowest ?? 0)...max(lowest ?? 0, highest ?? 0)
    }

    // MARK: The image

    private static func make(_ invocation: Invocation) throws {
        let output = try invocation.image.map { try ImageOutput($0) }
        let dumpfile = invocation.isDumpfile ? try openDumpfile(invocation.source) : nil
        // As the C tool, which makes the store with its first file: only if contents are stored at all.
        let store = dumpfile == nil ? invocation.store : nil
        if let store { try DigestStore.makeDirectory(store) }
        if Sandbox.isWanted { try confine(invocation, store: store, output: output?.directory) }
        let tree = try dumpfile.map(parse) ?? tree(invocation)
        if let store { try add(tree, of: invocation.source, to: store) }
        try write(tree, invocation, to: output)
    }

    private static func confine(_ invocation: Invocation, store: ByteString?, output: ByteString?) throws {
        var rights = rights
        if invocation.isDumpfile || invocation.changes.attributes != .all { rights.capabilities?.remove(.systemAdmin) }
        _ = try Sandbox.apply(rights, repository: nil) { confinement in
            if !invocation.isDumpfile { confinement.readable.append(invocation.source) }
            if let store { confinement.writable.append(store) }
            if let output { confinement.writable.append(output) }
        }
    }

    private static func add(_ tree: FileTree, of source: ByteString, to path: ByteString) throws {
        var store = try DigestStore(path)
        try store.add(tree, from: source)
    }

    private static func write(_ tree: FileTree, _ invocation: Invocation, to output: ImageOutput?) throws {
        let image = try ErofsPlan(tree, version: version(for: tree, invocation.versions))
        try output?.write(image)
        if invocation.printsDigest { try Output.print(image.identifier(.sha256).hex) }
    }

    /// In bytes: no image of the largest size has a dumpfile that is longer.
    private static let longestDumpfile = 4 * ErofsImage.maximumSize

    private static func openDumpfile(_ path: ByteString) throws -> OpenFile {
        OpenFile(path == "-" ? try FileDescriptor.duplicate(of: StandardStream.input.rawValue) : try FileDescriptor.open(path, .readOnly))
    }

    private static func parse(_ dumpfile: OpenFile) throws -> FileTree {
        try parseDumpfile(try dumpfile.readAll(limit: longestDumpfile))
    }

    private static func tree(_ invocation: Invocation) throws -> FileTree {
        var others: [ByteString] = []
        let tree = try hashDirectory(invocation.source, .sha256, threads: invocation.threads) { others.append($0) }
        // The C tool reads them, too. An image without them would be another one.
        if let first = others.min() {
            throw ToolError(
                "\(invocation.source)/\(first) is on another file system than \(invocation.source): unmount it, or make the image of a copy"
            )
        }
        return try invocation.changes.applied(to: tree)
    }

    /// Version 1 if there are whiteouts, which only this one has as they are meant, and it is allowed.
    private static func version(for tree: FileTree, _ allowed: ClosedRange<Int>) -> ErofsVersion {
        guard allowed.lowerBound == 0, allowed.upperBound == 1 else { return allowed.lowerBound == 0 ? .v0 : .v1 }
        var pending = [FileTree.root]
        while let directory = pending.popLast() {
            for entry in tree.entries(of: directory) {
                let inode = tree.inode(of: entry)
                if tree.isWhiteout(inode) { return .v1 }
                if tree.isDirectory(inode) { pending.append(inode) }
            }
        }
        return .v0
    }
}

/// An open file in an optional.
final class OpenFile {
    private let file: FileDescriptor
    init(_ file: consuming FileDescriptor) { self.file = file }

    func readAll(limit: Int) throws -> [UInt8] { try file.readAll(limit: limit) }

    func write(_ image: ErofsPlan) throws(SystemError) {
        try image.write { (bytes) throws(SystemError) in try file.writeAll(bytes) }
    }
}

/// Where the image is written: a new file, which replaces one of that name when it is complete; or what is there already and is no file, such
/// as a pipe or /proc/self/fd/3.
struct ImageOutput {
    /// The directory in which a file gets its name; nil if something is written to that exists.
    private(set) var directory: ByteString?
    private var name: ByteString = ""
    private var existing: OpenFile?

    init(_ path: ByteString) throws {
        if path == "-" {
            guard !Output.outputIsTerminal else { throw ToolError("standard output is a terminal, to which no image is written") }
            existing = OpenFile(try FileDescriptor.duplicate(of: StandardStream.output.rawValue))
            return
        }
        let status = try FileDescriptor.currentDirectory.statusIfPresent(at: path)
        if let status, status.kind != .regular {
            existing = OpenFile(try FileDescriptor.open(path, [.writeOnly, .truncate]))
            return
        }
        let parts = FileDescriptor.split(path)
        (directory, name) = (parts.directory, parts.name)
        // Said before everything is read.
        _ = try FileDescriptor.open(parts.directory, [.readOnly, .directory])
    }

    func write(_ image: ErofsPlan) throws {
        if let existing { return try existing.write(image) }
        guard let directory else { preconditionFailure("an output is a directory and a name, or open") }
        let folder = try FileDescriptor.open(directory, [.readOnly, .directory])
        let naming = PendingFile.Naming(prefix: ".mkcomposefs-")
        var file = try PendingFile(in: folder, naming, mode: 0o666)
        do throws(SystemError) {
            try image.write { (bytes) throws(SystemError) in try file.file.writeAll(bytes) }
            try file.publish(in: folder, as: name)
        } catch {
            file.abandon(in: folder)
            throw error
        }
        try folder.sync()
    }
}
