import ComposefsBootFormats
import ComposefsBytes
import ComposefsTestSupport
import Testing

@Suite struct UnifiedKernelImageTests {
    private var kernel: EFIProgram {
        var program = EFIProgram()
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
        var program = EFIProgram()
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

    /// The figures of the optional header (PE format, 3.4), of programs for 64 and 32 bits.
    @Test func memoryLayout() throws {
        var program = kernel
        func layout() throws -> PortableExecutable.MemoryLayout {
            let bytes = program.bytes
            return try PortableExecutable(bytes).memoryLayout(in: bytes)
        }
        #expect(throws: ExecutableError.unknownHeader(0xeeee)) { try layout() }
        program.optionalHeader.replaceSubrange(0..<2, with: [0x0b, 0x02])
        program.optionalHeader.replaceSubrange(24..<36, with: [0, 0, 0xf9, 0x4d, 1, 0, 0, 0, 0, 0x10, 0, 0])
        // Every section is at 0x10000 and has one block in the file.
        #expect(try layout() == .init(base: 0x1_4df9_0000, alignment: 0x1000, end: 0x10200))
        #expect(try PortableExecutable(program.bytes).sections.allSatisfy { $0.address == 0x10000 })
        program.optionalHeader.replaceSubrange(0..<2, with: [0x0b, 0x01])
        program.optionalHeader.replaceSubrange(28..<32, with: [0, 0, 0x40, 0])
        #expect(try layout() == .init(base: 0x40_0000, alignment: 0x1000, end: 0x10200))
        for alignment: [UInt8] in [[0, 0, 0, 0], [1, 0x10, 0, 0], [0, 0, 0x20, 0]] {
            program.optionalHeader.replaceSubrange(32..<36, with: alignment)
            #expect(throws: ExecutableError.self) { try layout() }
        }
        program.optionalHeader = [0x0b, 0x02]
        #expect(throws: ExecutableError.self) { try layout() }
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
        var program = EFIProgram()
        program.sections = [(".osrel", 2, [0xff, 0xfe])]
        let bytes = program.bytes
        #expect(throws: ExecutableError.notUTF8(".osrel")) { try UnifiedKernelImage(bytes).label(in: bytes) }
    }
}
