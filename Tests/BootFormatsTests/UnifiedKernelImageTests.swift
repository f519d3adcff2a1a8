import ComposefsBootFormats
import ComposefsBytes
import Testing

/// A PE file, built from the figures of the specification.
private struct Program {
    var machine: UInt16 = 0x8664
    var optionalHeader = [UInt8](repeating: 0xee, count: 112)
    var sections: [(name: String, memorySize: Int, data: [UInt8])] = []
    var signatureOffset = 0x80

    private static func little(_ value: Int, _ size: Int) -> [UInt8] { (0..<size).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }

    var bytes: [UInt8] {
        var file: [UInt8] = Array("MZ".utf8) + [UInt8](repeating: 0, count: 0x3a) + Self.little(signatureOffset, 4)
        file += [UInt8](repeating: 0x55, count: signatureOffset - file.count)
        file += [0x50, 0x45, 0, 0] + Self.little(Int(machine), 2) + Self.little(sections.count, 2) + [UInt8](repeating: 0, count: 12)
        file += Self.little(optionalHeader.count, 2) + Self.little(0x22, 2) + optionalHeader
        var offset = (file.count + 40 * sections.count + 511) / 512 * 512
        var contents: [UInt8] = []
        for section in sections {
            let stored = (section.data.count + 511) / 512 * 512
            file += Array(section.name.utf8.prefix(8)) + [UInt8](repeating: 0, count: max(0, 8 - section.name.utf8.count))
            file += Self.little(section.memorySize, 4) + Self.little(0x10000, 4) + Self.little(stored, 4) + Self.little(offset, 4)
            file += [UInt8](repeating: 0, count: 16)
            contents += section.data + [UInt8](repeating: 0xaa, count: stored - section.data.count)
            offset += stored
        }
        file += [UInt8](repeating: 0, count: (file.count + 511) / 512 * 512 - file.count)
        return file + contents
    }

    mutating func add(_ name: String, _ text: String) { sections.append((name, text.utf8.count, Array(text.utf8))) }
}

@Suite struct UnifiedKernelImageTests {
    private var kernel: Program {
        var program = Program()
        program.add(".text", "code")
        program.add(".osrel", "ID=example\nVERSION_ID=1\n")
        program.add(".cmdline", "ro composefs=1\n")
        program.add(".uname", "6.9.0\0\0")
        program.add(".linux", "kernel")
        program.add(".profile", "ID=other\n")
        program.add(".cmdline", "alternative")
        return program
    }

    @Test func textOfSections() throws {
        let bytes = kernel.bytes
        let image = try UnifiedKernelImage(bytes)
        #expect(image.executable.machine == 0x8664)
        #expect(image.executable.sections.map(\.name) == [".text", ".osrel", ".cmdline", ".uname", ".linux", ".profile", ".cmdline"])
        #expect(image.kind == .kernel)
        #expect(try image.commandLine(in: bytes)?.arguments == ["ro", "composefs=1"])
        #expect(try image.text(".uname", in: bytes) == "6.9.0")
        #expect(try image.label(in: bytes) == "example 1")
        #expect(try image.text(".initrd", in: bytes) == nil)
    }

    /// The stored size is padded; the size in memory says how much is content. If memory is larger, a loader adds zeros.
    @Test func onlyTheSectionsOwnBytesAreRead() throws {
        var program = Program()
        program.sections = [(".cmdline", 2, Array("abc".utf8)), (".uname", 4000, Array("xyz".utf8) + [0])]
        let bytes = program.bytes
        let image = try UnifiedKernelImage(bytes)
        #expect(image.kind == .addon)
        #expect(try image.text(".cmdline", in: bytes) == "ab")
        #expect(try image.text(".uname", in: bytes) == "xyz")
    }

    @Test func otherFilesAreRefused() {
        #expect(throws: ExecutableError.notExecutable(offset: 0)) { try PortableExecutable([UInt8]()) }
        #expect(throws: ExecutableError.notExecutable(offset: 0)) { try PortableExecutable([UInt8](repeating: 0, count: 4096)) }
        var wrong = kernel.bytes
        wrong[0x80] = 0x4e
        #expect(throws: ExecutableError.notExecutable(offset: 0x80)) { try PortableExecutable(wrong) }
        var far = kernel.bytes
        far.replaceSubrange(0x3c..<0x40, with: [0xff, 0xff, 0xff, 0xff])
        #expect(throws: ExecutableError.truncated(offset: 0xffff_ffff, needed: 24, size: UInt64(far.count))) { try PortableExecutable(far) }
        var many = kernel.bytes
        many.replaceSubrange(0x86..<0x88, with: [0xff, 0xff])
        #expect(throws: ExecutableError.tooManySections(65535, limit: 96)) { try PortableExecutable(many) }
        let short = Array(kernel.bytes.prefix(0x80 + 24 + 112 + 39))
        #expect(throws: ExecutableError.truncated(offset: 0x80 + 24 + 112, needed: 280, size: UInt64(short.count))) {
            try PortableExecutable(short)
        }
    }

    @Test func sectionsOutsideOfTheFileAndOverTheLimitAreRefused() throws {
        let whole = kernel.bytes
        let image = try UnifiedKernelImage(whole)
        let section = try #require(image.section(".cmdline"))
        let cut = Array(whole.prefix(Int(section.offset) + 3))
        #expect(throws: ExecutableError.truncated(offset: UInt64(section.offset), needed: 15, size: UInt64(cut.count))) {
            try image.text(".cmdline", in: cut)
        }
        #expect(throws: ExecutableError.sectionTooLarge(".cmdline", size: 15, limit: 14)) {
            try image.executable.contents(of: section, in: whole, limit: 14)
        }
        var program = Program()
        program.sections = [(".osrel", 2, [0xff, 0xfe])]
        let bytes = program.bytes
        #expect(throws: ExecutableError.notUTF8(".osrel")) { try UnifiedKernelImage(bytes).label(in: bytes) }
    }
}
