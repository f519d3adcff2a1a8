internal import ComposefsBytes
internal import ComposefsLinuxSystem

extension Confinement {
    /// Gives up everything that the confinement does not name, for the whole process and for good. Another confinement that is applied later
    /// can only take away more.
    ///
    /// A kernel without Landlock or seccomp filters is no error; what is in force then is in the result. Paths that do not exist are left out:
    /// what is made there later cannot be reached.
    ///
    /// - Precondition: the process has no other thread.
    /// - Throws: `ConfinementError`. What was given up before the error stays so.
    public func apply() throws(ConfinementError) -> AppliedConfinement {
        if let count = Host.threadCount(), count > 1 { throw .threadsRunning(count) }
        let before = usesNetwork ? Host.openDescriptors() : []
        do throws(SystemError) {
            try Host.forbidNewPrivileges()
            let (landlock, roots) = limitsPaths ? try limitPaths() : (.notUsed, AppliedConfinement.Roots())
            if let capabilities { try Host.limitCapabilities(to: capabilities) }
            let filter = try installFilter()
            return AppliedConfinement(
                confinement: self, landlock: landlock, filter: filter, hasCapabilities: try Host.hasCapabilities(), roots: roots,
                descriptors: before)
        } catch {
            throw .system(error)
        }
    }

    // MARK: Landlock

    private static let reading: LandlockAccess = [.readFile, .readDirectory]
    /// Device nodes, FIFOs and sockets too: a repair sets aside what stands in an object's place. Making a device node needs CAP_MKNOD besides.
    private static let writing: LandlockAccess = [
        .readFile, .readDirectory, .writeFile, .truncate, .removeFile, .removeDirectory, .makeRegular, .makeDirectory, .makeSymbolicLink,
        .makeFIFO, .makeSocket, .makeCharacterDevice, .makeBlockDevice, .refer,
    ]
    private static let linking: LandlockAccess = [.readFile, .readDirectory, .writeFile, .truncate, .refer]
    private static let terminal: LandlockAccess = [.readFile, .writeFile, .truncate, .deviceControl]

    /// The version of the ABI, or why Landlock is of no use.
    private static func landlock() throws(SystemError) -> (version: Int, mechanism: Mechanism) {
        do throws(SystemError) {
            let version = try LandlockRuleset.version()
            // Files of a repository get second names in other directories.
            guard version >= 2 else { return (version, .unavailable("its ABI 1 cannot allow links between directories")) }
            return (version, .active("ABI \(version)"))
        } catch {
            switch error.errno {
            case .noSystemCall: return (0, .unavailable("the kernel lacks it"))
            case .notSupported: return (0, .unavailable("it is disabled (lsm=)"))
            // The filter of a container runtime that does not know the call.
            case .notPermitted: return (0, .unavailable("a seccomp filter refuses it"))
            default: throw error
            }
        }
    }

    private func limitPaths() throws(SystemError) -> (Mechanism, AppliedConfinement.Roots) {
        let (version, mechanism) = try Self.landlock()
        guard mechanism.isActive else { return (mechanism, AppliedConfinement.Roots()) }
        let known = LandlockAccess.known(toABI: version)
        let ruleset = try LandlockRuleset(
            handling: known, deniesTCP: version >= 4 && !usesNetwork, isScoped: version >= 6 && !runsPrograms && !usesNetwork)
        var roots = AppliedConfinement.Roots()
        var seen: Set<ByteString> = []
        let readableToo = readable + SystemFiles.readable + (usesNetwork ? SystemFiles.network : [])
        for (paths, access, isWritable) in [
            (writable, Self.writing, true), (SystemFiles.writable, Self.terminal, true), (linkable, Self.linking, false),
            (readableToo, Self.reading, false),
        ] {
            for path in paths where seen.insert(path).inserted {
                guard let root = try Self.allow(path, access.intersection(known), in: ruleset) else { continue }
                if isWritable { roots.writable.append(root) } else { roots.readable.append(root) }
            }
        }
        // Not in the list above: a directory may be readable, too. The kernel adds up what rules allow.
        for path in removable { _ = try Self.allow(path, LandlockAccess.removeDirectory.intersection(known), in: ruleset) }
        try ruleset.restrictThread()
        return (mechanism, roots)
    }

    /// Returns the kernel's path of what was allowed; nil if there is nothing at the path.
    private static func allow(
        _ path: ByteString, _ access: LandlockAccess, in ruleset: borrowing LandlockRuleset
    ) throws(SystemError) -> ByteString? {
        let file: FileDescriptor
        do throws(SystemError) {
            file = try FileDescriptor.open(path, .pathOnly)
        } catch {
            // What cannot be looked up now cannot be opened later either.
            switch error.errno {
            case .noEntry, .notDirectory, .accessDenied, .tooManySymbolicLinks, .nameTooLong, .invalidArgument: return nil
            default: throw error
            }
        }
        let access = try file.status().kind == .directory ? access : access.intersection(.ofFiles)
        do throws(SystemError) {
            try ruleset.allow(access, beneath: file)
        } catch {
            // A pipe or the like, named through /proc: it is open already, and has no directory.
            if error.errno == .badDescriptorState { return nil }
            throw error
        }
        return file.kernelPath
    }

    // MARK: What the kernel offers

    /// What a confinement would be made of on this kernel.
    public struct Availability: Sendable, Hashable, CustomStringConvertible {
        public var landlock: Mechanism
        public var filter: Mechanism

        public var description: String { "no_new_privs, capabilities, \(landlock.text("Landlock")), \(filter.text("seccomp"))" }
    }

    /// Looks without changing anything.
    public static func availability() -> Availability {
        let landlock: Mechanism
        do throws(SystemError) { landlock = try self.landlock().mechanism } catch { landlock = .unavailable("\(error)") }
        let hasFilters = (try? FileDescriptor.open("/proc/sys/kernel/seccomp/actions_avail", .pathOnly)) != nil
        let filter: Mechanism =
            SystemCallFilter.architecture == nil
            ? .unavailable("no filter is known for this architecture") : hasFilters ? .active("") : .unavailable("the kernel lacks it")
        return Availability(landlock: landlock, filter: filter)
    }

    // MARK: seccomp

    private func installFilter() throws(SystemError) -> Mechanism {
        guard let architecture = SystemCallFilter.architecture else { return .unavailable("no filter is known for this architecture") }
        let program = FilterProgram(
            self, architecture: architecture, hasX32Calls: SystemCallFilter.hasX32Calls, number: SystemCallFilter.number(of:))
        do throws(SystemError) {
            try SystemCallFilter.install(program.instructions, inAllThreads: true)
            return .active("")
        } catch {
            switch error.errno {
            case .noSystemCall, .invalidArgument: return .unavailable("the kernel lacks it")
            default: throw error
            }
        }
    }
}
