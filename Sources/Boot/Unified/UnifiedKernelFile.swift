import ComposefsBootFormats
import ComposefsBytes
import ComposefsLinuxSystem

/// The file of a unified kernel image, and the directory beside it in which it is made.
struct UnifiedKernelFile {
    private let name: ByteString
    private let place: ByteString

    /// The programs, the best first. systemd installs `ukify` in one of two places.
    static let ukify: [ByteString] = ["ukify", "/usr/lib/systemd/ukify"]
    static let objcopy: ByteString = "objcopy"

    init(_ path: ByteString) {
        (place, name) = FileDescriptor.split(path)
    }

    /// A section, and the file with its content.
    private struct Section {
        var name: ByteString
        var file: ByteString
        var size: UInt64
    }

    /// Makes the image, compares it with its parts, and gives it its name.
    func build(
        _ parts: UnifiedKernelParts, _ line: KernelCommandLine, stub: ByteString
    ) throws -> (size: UInt64, program: ByteString) {
        let directory = try FileDescriptor.open(place, [.readOnly, .directory])
        let temporary = ".tmp-uki-" + ByteString(Host.randomName(12))
        try directory.makeDirectory(at: temporary, mode: 0o700)
        defer {
            for name in ["osrel", "uname", "cmdline", "initrd", "linux", "uki"] as [ByteString] {
                try? directory.unlink(at: temporary + "/" + name)
            }
            try? directory.removeDirectory(at: temporary)
        }
        let work = place + "/" + temporary
        func write(_ section: ByteString, _ contents: [StoredFile]) throws -> Section {
            let path = work + "/" + ByteString(section.bytes.dropFirst())
            let file = try FileDescriptor.open(path, [.writeOnly, .create, .exclusive], mode: 0o600)
            var size: UInt64 = 0
            for content in contents {
                // The kernel finds the next archive at a multiple of four bytes.
                let padding = [UInt8](repeating: 0, count: Int((4 - size % 4) % 4))
                try file.writeAll(padding)
                size += UInt64(padding.count)
                try content.forEachPart { try file.writeAll($0) }
                size += content.byteCount
            }
            return Section(name: section, file: path, size: size)
        }
        var sections = [try write(".osrel", [parts.osRelease])]
        if let version = parts.version { sections.append(try write(".uname", [.bytes(version.bytes)])) }
        sections.append(try write(".cmdline", [.bytes(line.bytes)]))
        if !parts.ramDisks.isEmpty { sections.append(try write(".initrd", parts.ramDisks)) }
        // Last, because the kernel may need the memory behind it.
        sections.append(try write(".linux", [parts.kernel]))

        let layout = try UnifiedKernelFile.layout(of: stub)
        let output = work + "/uki"
        let program = try run(sections, stub, layout, output)
        let size = try compare(output, sections, program)
        let made = try FileDescriptor.open(output, [.readOnly])
        try made.changeMode(0o644)
        try made.sync()
        try directory.rename(at: temporary + "/uki", to: name)
        try directory.sync()
        return (size, program)
    }

    private static func layout(of stub: ByteString) throws -> PortableExecutable.MemoryLayout {
        let opened: FileDescriptor
        do throws(SystemError) {
            // Not blocking: a FIFO of this name must not block the caller.
            opened = try FileDescriptor.open(stub, [.readOnly, .nonBlocking])
        } catch {
            throw error.isMissing ? UnifiedKernelError.noStub(stub) : error
        }
        guard try opened.status().kind == .regular else { throw BootResourceFault.notRegularFile(stub) }
        let file = try OpenFile(opened)
        do {
            return try PortableExecutable(file).memoryLayout(in: file)
        } catch let error as ExecutableError {
            throw UnifiedKernelError.executable(stub, error)
        }
    }

    // MARK: Programs

    private func run(
        _ sections: [Section], _ stub: ByteString, _ layout: PortableExecutable.MemoryLayout, _ output: ByteString
    ) throws -> ByteString {
        for program in Self.ukify {
            if try start(program, ["build", "--stub=" + stub, "--output=" + output] + sections.map(Self.ukifyArgument)) { return program }
        }
        let arguments = try Self.objcopyArguments(sections.map { ($0.name, $0.file, $0.size) }, layout) + [stub, output]
        if try start(Self.objcopy, arguments) { return Self.objcopy }
        throw UnifiedKernelError.noProgram(Self.ukify.prefix(1) + [Self.objcopy])
    }

    private static func ukifyArgument(_ section: Section) -> ByteString {
        switch section.name {
        case ".osrel": "--os-release=@" + section.file
        case ".cmdline": "--cmdline=@" + section.file
        case ".uname": "--uname=@" + section.file
        case ".initrd": "--initrd=" + section.file
        default: "--linux=" + section.file
        }
    }

    /// Each section begins behind the one before, the first behind those of the stub. objcopy counts addresses from 0, and not from the
    /// program's first byte on.
    static func objcopyArguments(
        _ sections: [(name: ByteString, file: ByteString, size: UInt64)], _ layout: PortableExecutable.MemoryLayout
    ) throws(UnifiedKernelError) -> [ByteString] {
        var arguments: [ByteString] = []
        var end = layout.end
        for section in sections {
            let alignment = UInt64(layout.alignment)
            let address = (end + alignment - 1) / alignment * alignment
            end = address + section.size
            guard end <= UInt64(UInt32.max), !layout.base.addingReportingOverflow(end).overflow else {
                throw UnifiedKernelError.tooLarge(end)
            }
            arguments += [
                "--add-section", section.name + "=" + section.file, "--set-section-flags", section.name + "=data,readonly",
                "--change-section-vma", section.name + "=0x" + ByteString(String(layout.base + address, radix: 16)),
            ]
        }
        return arguments
    }

    /// Runs a program; false if it is not installed. Its messages go to standard error.
    private func start(_ program: ByteString, _ arguments: [ByteString]) throws -> Bool {
        let process: ChildProcess
        do throws(SystemError) {
            process = try ChildProcess.start(program, arguments)
        } catch {
            guard error.isMissing else { throw error }
            return false
        }
        let status = try process.wait()
        guard status == 0 else { throw UnifiedKernelError.program(program, status: status) }
        return true
    }

    // MARK: The result

    /// The size of the file whose sections have been compared with what they were to have.
    private func compare(_ output: ByteString, _ sections: [Section], _ program: ByteString) throws -> UInt64 {
        let file = try OpenFile(try FileDescriptor.open(output, [.readOnly]))
        do {
            let image = try UnifiedKernelImage(file)
            for section in sections {
                let expected = try OpenFile(try FileDescriptor.open(section.file, [.readOnly]))
                guard let found = image.section(section.name), try Self.has(file, found, expected) else {
                    throw UnifiedKernelError.differs(program, section: section.name)
                }
            }
            // Sections that share memory would overwrite each other.
            let places = image.executable.sections.filter { $0.memorySize > 0 }.sorted { $0.address < $1.address }
            for (before, after) in zip(places, places.dropFirst())
            where UInt64(before.address) + UInt64(before.memorySize) > UInt64(after.address) {
                throw UnifiedKernelError.differs(program, section: after.name)
            }
        } catch let error as ExecutableError {
            throw UnifiedKernelError.executable(output, error)
        }
        return file.byteCount
    }

    /// Whether a section has this content; a program may add padding.
    private static func has(_ file: OpenFile, _ section: PortableExecutable.Section, _ expected: OpenFile) throws -> Bool {
        guard UInt64(section.size) >= expected.byteCount else { return false }
        let count = 1 << 20
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 * count, alignment: 4096)
        defer { buffer.deallocate() }
        let (left, right) = (
            UnsafeMutableRawBufferPointer(rebasing: buffer[..<count]), UnsafeMutableRawBufferPointer(rebasing: buffer[count...])
        )
        var offset: UInt64 = 0
        while offset < UInt64(section.size) {
            let wanted = Int(min(UInt64(count), UInt64(section.size) - offset))
            let part = UnsafeMutableRawBufferPointer(rebasing: left[..<wanted])
            guard try file.read(at: UInt64(section.offset) + offset, into: part) == wanted else { return false }
            let known = try expected.read(at: offset, into: UnsafeMutableRawBufferPointer(rebasing: right[..<wanted]))
            guard part.prefix(known).elementsEqual(right.prefix(known)), part.dropFirst(known).allSatisfy({ $0 == 0 }) else { return false }
            offset += UInt64(wanted)
        }
        return true
    }
}
