import ComposefsBootFormats
import ComposefsBytes
import ComposefsHashing

/// Any bytes, taken as each of the formats: no trap, no hang, and what is written is read again as the same.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeRawBufferPointer(start: start, count: count))
    do {
        let image = try UnifiedKernelImage(bytes)
        _ = image.kind
        if let layout = try? image.executable.memoryLayout(in: bytes) {
            precondition(layout.alignment.nonzeroBitCount == 1, "an alignment that is no power of two")
            precondition(image.executable.sections.allSatisfy { UInt64($0.address) <= layout.end }, "a section behind the end")
        }
        for section in image.executable.sections {
            let contents = try? image.executable.contents(of: section, in: bytes, limit: UnifiedKernelImage.textLimit)
            precondition(contents.map { $0.count <= bytes.count } ?? true, "more than the file has")
        }
        _ = try image.label(in: bytes)
        _ = try image.commandLine(in: bytes)
    } catch {
        _ = "\(error)"
    }

    let line = KernelCommandLine(parsing: bytes)
    precondition(KernelCommandLine(parsing: line.bytes) == line, "other arguments after writing")
    do {
        for argument in try line.composefsArguments() {
            let again = try ComposefsArgument(argument.text)
            precondition(again == argument, "another argument after writing")
        }
        for algorithm in [VerityAlgorithm.sha256, .sha512] { _ = try line.composefsArgument(for: algorithm) }
    } catch {
        _ = "\(error)"
    }

    _ = OSRelease(parsing: bytes).label
    var entry = LoaderEntry(parsing: bytes)
    precondition(LoaderEntry(parsing: entry.bytes) == entry, "another entry after writing")
    let moved = entry.relocate(to: "id", subdirectory: "boot")
    precondition(Set(moved.map(\.to)).count == moved.count, "two files in one place")
    entry.setArgument("composefs=x")
    precondition(entry.options.arguments.contains("composefs=x"), "the argument is not there")
    precondition(entry.keyedFiles.map(\.path) == entry.files, "other files with keys")
    entry.remove("options")
    precondition(!entry.has("options") || entry.options.arguments.isEmpty, "the arguments are still there")

    if let name = LoaderEntryName(fileName: ByteString(bytes + Array(".conf".utf8))) {
        precondition(LoaderEntryName(fileName: name.stem + ".conf") == name, "another name after writing")
    }
    let halves = bytes.split(separator: 0, maxSplits: 1, omittingEmptySubsequences: false).map { ByteString($0) }
    if halves.count == 2 {
        precondition(compareVersions(halves[0], halves[1]) == -compareVersions(halves[1], halves[0]), "versions have no order")
    }
    return 0
}
