internal import ComposefsBytes
internal import ComposefsLinuxSystem

extension FeatureProber {
    private static let notWritable = "this directory is not writable"

    /// Tries the features of the directory's file system.
    mutating func probeFiles(in directory: borrowing FileDescriptor) {
        for (name, algorithm, title) in [("fsVeritySha256", 1, "fs-verity, SHA-256"), ("fsVeritySha512", 2, "fs-verity, SHA-512")] {
            add(
                name, title, without: "repositories are insecure: content is verified when it is stored and by fsck",
                verity(directory, UInt8(algorithm)))
        }
        add(
            "builtinSignatures", "fs-verity signatures",
            without: "the kernel does not check signatures; it still verifies an image's digest",
            signatures(directory))
        add(
            "unnamedFiles", "Files without a name (O_TMPFILE)",
            without: "objects are created under a temporary name, which gc removes after a crash",
            unnamedFiles(directory))
        add("reflink", "Shared blocks (reflink)", without: "files are copied into the repository", reflink(directory))
    }

    /// Creates a file with content and opens it for reading only: fs-verity requires that no descriptor is open for writing.
    private func sealable(_ directory: borrowing FileDescriptor, _ content: [UInt8]) throws(SystemError) -> FileDescriptor {
        try Self.temporary(directory, content).reopen(.readOnly)
    }

    static func temporary(_ directory: borrowing FileDescriptor, _ content: [UInt8]) throws(SystemError) -> FileDescriptor {
        do throws(SystemError) {
            let file = try directory.openTemporary(mode: 0o600)
            try file.writeAll(content)
            return file
        } catch {
            guard error.isUnsupported || error.errno == .isDirectory else { throw error }
        }
        let name = ".cfsoci-probe-" + ByteString(Host.randomName())
        let file = try directory.open(at: name, [.readWrite, .create, .exclusive], mode: 0o600)
        try directory.unlink(at: name)
        try file.writeAll(content)
        return file
    }

    /// Repeats the call while a child process, which another thread forked, still holds the descriptor for writing.
    static func enableVerity(
        _ file: borrowing FileDescriptor, _ algorithm: UInt8, signature: [UInt8] = []
    ) throws(SystemError) {
        for attempt in 1... {
            do throws(SystemError) {
                return try enable(file, algorithm, signature)
            } catch {
                guard error.errno == .textBusy, attempt < 100 else { throw error }
                Host.sleep(milliseconds: 1)
            }
        }
    }

    private static func enable(_ file: borrowing FileDescriptor, _ algorithm: UInt8, _ signature: [UInt8]) throws(SystemError) {
        guard !signature.isEmpty else { return try file.enableVerity(algorithm: algorithm) }
        var failure: SystemError?
        signature.withUnsafeBytes { bytes in
            do throws(SystemError) { try file.enableVerity(algorithm: algorithm, signature: bytes) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    private func verity(_ directory: borrowing FileDescriptor, _ algorithm: UInt8) -> Outcome {
        guard writable else { return verityOfUnwritable(directory) }
        do throws(SystemError) {
            let file = try sealable(directory, sample.good.content)
            try Self.enableVerity(file, algorithm)
            guard let measured = try file.measureVerity(), measured.algorithm == algorithm else {
                return .no("enabled, but the file has no digest")
            }
            return .yes
        } catch {
            if error.isUnsupported { return Self.noVerity(directory, error) }
            if Self.requiresSignatures, error.errno == .notPermitted || error.errno == .noKey {
                return .yes("only files with a signature (fs.verity.require_signatures=1)")
            }
            return .failure(error)
        }
    }

    private func verityOfUnwritable(_ directory: borrowing FileDescriptor) -> Outcome {
        do throws(SystemError) {
            _ = try directory.measureVerity()
            return .unknown(Self.notWritable)
        } catch {
            return error.isUnsupported ? Self.noVerity(directory, error) : .failure(error)
        }
    }

    private static func noVerity(_ directory: borrowing FileDescriptor, _ error: SystemError) -> Outcome {
        let signs: [ByteString] = ["/proc/sys/fs/verity", "/sys/fs/ext4/features/verity", "/sys/fs/btrfs/features/verity"]
        let isKnown = signs.contains { (try? FileDescriptor.open($0, .pathOnly)) != nil }
        guard isKnown else { return .no("not supported by this kernel (CONFIG_FS_VERITY) or this file system: \(error.errno)") }
        let isExt4 = (try? MountEntry.containing(directory))??.type == "ext4"
        return .no("not supported by this file system\(isExt4 ? " (tune2fs -O verity enables it on ext4)" : ""): \(error.errno)")
    }

    private static let requireSignatures: ByteString = "/proc/sys/fs/verity/require_signatures"

    static var requiresSignatures: Bool {
        (try? FileDescriptor.open(requireSignatures, .readOnly).readAll(limit: 16))?.first == UInt8(ascii: "1")
    }

    /// A kernel that checks signatures refuses an invalid one. A kernel that does not accepts any bytes.
    private func signatures(_ directory: borrowing FileDescriptor) -> Outcome {
        var outcome: Outcome
        if writable, features.contains(where: { $0.name == "fsVeritySha256" && $0.state == .yes }) {
            do throws(SystemError) {
                let file = try sealable(directory, sample.good.content)
                try Self.enableVerity(file, 1, signature: [0])
                outcome = .no("this kernel does not check signatures (no CONFIG_FS_VERITY_BUILTIN_SIGNATURES)")
            } catch {
                switch error.errno {
                case .badMessage, .noKey, .keyRejected, .invalidArgument: outcome = .yes
                default: outcome = .failure(error)
                }
            }
        } else if features.contains(where: { $0.name == "fsVeritySha256" && $0.state == .no }) {
            return .no("no fs-verity")
        } else {
            outcome = .unknown(Self.notWritable)
        }
        guard outcome.state != .no else { return outcome }
        let keys = Self.keyCount()
        var parts: [String] = outcome.detail.isEmpty ? [] : [outcome.detail]
        parts.append(keys.map { "keyring .fs-verity: \($0) \($0 == 1 ? "key" : "keys")" } ?? "keyring .fs-verity is not visible")
        parts.append(Self.requiresSignatures ? "unsigned files are refused" : "unsigned files are allowed")
        outcome.detail = parts.joined(separator: "; ")
        outcome.flags["required"] = Self.requiresSignatures
        if let keys { outcome.numbers["keys"] = keys }
        return outcome
    }

    /// The number of keys in the keyring `.fs-verity`, from `/proc/keys` (keyrings(7)), which lists the keys that the process may view.
    private static func keyCount() -> Int? {
        guard let bytes = try? FileDescriptor.open("/proc/keys", .readOnly).readAll(limit: 1 << 20) else { return nil }
        for line in bytes.split(separator: UInt8(ascii: "\n")) {
            let words = line.split(separator: UInt8(ascii: " "))
            guard words.count >= 10, words[7].elementsEqual("keyring".utf8), words[8].elementsEqual(".fs-verity:".utf8) else { continue }
            return Int(String(decoding: words[9], as: UTF8.self)) ?? 0
        }
        return nil
    }

    private func unnamedFiles(_ directory: borrowing FileDescriptor) -> Outcome {
        guard writable else { return .unknown(Self.notWritable) }
        do throws(SystemError) {
            _ = try directory.openTemporary(mode: 0o600)
            return .yes
        } catch {
            return error.isUnsupported || error.errno == .isDirectory
                ? .no("not supported by this file system (\(error.errno))") : .failure(error)
        }
    }

    private func reflink(_ directory: borrowing FileDescriptor) -> Outcome {
        guard writable else { return .unknown(Self.notWritable) }
        do throws(SystemError) {
            let source = try Self.temporary(directory, sample.good.content)
            let copy = try Self.temporary(directory, [])
            try copy.cloneContent(from: source)
            guard try copy.readAll(limit: 1 << 20) == sample.good.content else { return .no("a clone had other content") }
            return .yes
        } catch {
            return error.isUnsupported || error.errno == .invalidArgument
                ? .no("not supported by this file system (\(error.errno))") : .failure(error)
        }
    }
}
