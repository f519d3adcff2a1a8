public import ComposefsBytes

/// A Type 1 entry of a boot loader (UAPI "Boot Loader Specification", Type #1).
///
/// The lines stay as they are: keys that this type does not know, comments and the order of lines survive a change.
public struct LoaderEntry: Sendable, Equatable {
    /// The lines without their ends.
    public private(set) var lines: [ByteString]

    public init(_ lines: [ByteString] = []) { self.lines = lines }

    public init(parsing text: some Sequence<UInt8>) {
        lines = Array(text).split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).map { line in
            ByteString(line[..<(line.lastIndex { $0 != UInt8(ascii: "\r") }.map { $0 + 1 } ?? line.startIndex)])
        }
        // A text ends with the end of its last line, behind which there is no other.
        if lines.last?.isEmpty == true { lines.removeLast() }
    }

    public var bytes: [UInt8] { lines.flatMap { $0.bytes + [UInt8(ascii: "\n")] } }

    /// The values of `key` in their order; several lines may have the same key.
    public func values(of key: ByteString) -> [ByteString] { lines.compactMap { Self.value($0, key) } }

    /// The first value of `key`.
    public subscript(key: ByteString) -> ByteString? { values(of: key).first }

    /// All kernel arguments: those of several lines are one command line.
    public var options: KernelCommandLine {
        KernelCommandLine(parsing: values(of: "options").map(\.bytes).joined(separator: [UInt8(ascii: " ")]))
    }

    /// Replaces the first line of `key`, or appends one.
    public mutating func set(_ key: ByteString, _ value: ByteString) {
        let line = key + " " + value
        if let index = lines.firstIndex(where: { Self.value($0, key) != nil }) { lines[index] = line } else { lines.append(line) }
    }

    /// Removes all lines of `key`.
    public mutating func remove(_ key: ByteString) { lines.removeAll { Self.value($0, key) != nil } }

    /// Whether there is a line with this key, even without a value.
    public func has(_ key: ByteString) -> Bool {
        lines.contains { line in
            let text = line.bytes[...].drop(while: isASCIISpace)
            return text.starts(with: key.bytes) && text.dropFirst(key.count).first.map(isASCIISpace) ?? true
        }
    }

    /// Sets a kernel argument in the first line of options: replaces the first one with the same key, or appends it.
    public mutating func setArgument(_ argument: ByteString) {
        var line = KernelCommandLine(parsing: self["options"]?.bytes ?? [])
        line.set(argument)
        set("options", ByteString(line.bytes))
    }

    /// The keys whose values are paths of files that the boot loader reads.
    public static let pathKeys: [ByteString] = ["linux", "initrd", "efi", "uki", "devicetree"]

    /// The files that the boot loader reads, in the order of their lines.
    public var files: [ByteString] { keyedFiles.map(\.path) }

    /// The same with the keys of the lines.
    public var keyedFiles: [(key: ByteString, path: ByteString)] {
        lines.compactMap { line in Self.pathKeys.lazy.compactMap { key in Self.value(line, key).map { (key, $0) } }.first }
    }

    /// Moves the files to the directory `/subdirectory/id`, and returns them: each path as it was, and the new one relative to the directory in
    /// which `subdirectory` lies.
    ///
    /// A value without a `/` is no path and stays. Two files of the same name stay apart: the second gets a number.
    @discardableResult
    public mutating func relocate(to id: ByteString, subdirectory: ByteString? = nil) -> [(from: ByteString, to: ByteString)] {
        var moved: [(from: ByteString, to: ByteString)] = []
        for index in lines.indices {
            for key in Self.pathKeys {
                guard let path = Self.value(lines[index], key), let slash = path.bytes.lastIndex(of: UInt8(ascii: "/")) else { continue }
                let new: ByteString
                if let known = moved.first(where: { $0.from == path }) {
                    new = known.to
                } else {
                    let name = ByteString(path.bytes[(slash + 1)...])
                    var candidate = id + "/" + name
                    var number = 2
                    while moved.contains(where: { $0.to == candidate }) {
                        candidate = id + "/" + ByteString("\(number)-") + name
                        number += 1
                    }
                    new = candidate
                    moved.append((path, new))
                }
                lines[index] = key + " " + (subdirectory.map { "/" + $0 } ?? "") + "/" + new
            }
        }
        return moved
    }

    /// The value of a line with this key, without the white space around it. Nil if the line has another key or is a comment.
    private static func value(_ line: ByteString, _ key: ByteString) -> ByteString? {
        let text = line.bytes[...].drop(while: isASCIISpace)
        guard text.starts(with: key.bytes) else { return nil }
        let rest = text.dropFirst(key.count)
        guard let separator = rest.first, isASCIISpace(separator) else { return nil }
        return ByteString(trimmingASCIISpace(rest))
    }
}

/// The file name of an entry, without its suffix, and the counters of boot attempts in it (UAPI "Boot Loader Specification", boot counting):
/// `NAME+LEFT.conf` or `NAME+LEFT-DONE.conf`.
public struct LoaderEntryName: Sendable, Equatable {
    public var name: ByteString
    /// The number of attempts that are left; nil if they are not counted.
    public var attemptsLeft: Int?
    /// The number of attempts that failed.
    public var attemptsDone: Int

    public init(_ name: ByteString, attemptsLeft: Int? = nil, attemptsDone: Int = 0) {
        self.name = name
        self.attemptsLeft = attemptsLeft
        self.attemptsDone = attemptsDone
    }

    /// Nil if the file is no entry: its name does not end in `suffix`, or is empty without it.
    public init?(fileName: ByteString, suffix: ByteString = ".conf") {
        guard fileName.hasSuffix(suffix), fileName.count > suffix.count else { return nil }
        let stem = fileName.bytes.dropLast(suffix.count)
        self.init(ByteString(stem))
        guard let plus = stem.lastIndex(of: UInt8(ascii: "+")), plus > stem.startIndex else { return }
        let counters = stem[(plus + 1)...].split(separator: UInt8(ascii: "-"), maxSplits: 1, omittingEmptySubsequences: false)
        let numbers = counters.compactMap(Self.counter)
        guard numbers.count == counters.count, let left = numbers.first else { return }
        self.init(ByteString(stem[..<plus]), attemptsLeft: left, attemptsDone: numbers.count == 2 ? numbers[1] : 0)
    }

    /// The name with its counters, without a suffix.
    public var stem: ByteString {
        guard let attemptsLeft else { return name }
        return name + ByteString(attemptsDone == 0 ? "+\(attemptsLeft)" : "+\(attemptsLeft)-\(attemptsDone)")
    }

    /// No attempt is left, and none has succeeded: boot loaders try such an entry last.
    public var isBad: Bool { attemptsLeft == 0 }

    private static func counter(_ digits: ArraySlice<UInt8>) -> Int? {
        guard (1...9).contains(digits.count), digits.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        return digits.reduce(0) { $0 * 10 + Int($1 - 0x30) }
    }
}
