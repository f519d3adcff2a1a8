import ComposefsBytes

/// The lines of `file_contexts`: patterns of paths, file types and labels. The last line that matches decides.
///
/// A pattern is tried only for paths below its directory, the part of its literal beginning up to the last `/`.
struct FileContexts {
    private struct Specification {
        var stem: [UInt8]
        var rest: PatternShape.Rest
        /// The letter of the file type; 0 for every type, and if the pattern itself contains the type.
        var type: UInt8
        var label: Int32
        /// The index in `patterns` if the rest of the line is a pattern.
        var pattern: Int32
        var file: Int32
        var line: Int32
    }

    /// The lists that apply to all entries of one directory, from the longest directory to the shortest.
    struct Scope {
        fileprivate var lists: [Int32] = []
    }

    /// The number of the label "none".
    static let noLabel: Int32 = -1

    private(set) var labels: [ByteString] = []
    private var labelNumbers: [ByteString: Int32] = ["<<none>>": noLabel]
    private var specifications: [Specification] = []
    private var files: [ByteString] = []
    private let patterns = PatternSet()
    /// Every list runs from the last line to the first.
    private var exact: [ByteString: [Int32]] = [:]
    private var directories: [ByteString: Int32] = [:]
    private var lists: [[Int32]] = []
    private var longestDirectory = 0

    /// Adds the lines of a file after the present ones.
    mutating func add(_ bytes: [UInt8], path: ByteString) throws(BootTransformError) {
        files.append(path)
        try forEachLine(of: bytes, path) { (fields, line) throws(BootTransformError) in
            guard specifications.count < BootLimits.specifications else {
                throw .policyLine(path: path, line: line, .tooManyLines(limit: BootLimits.specifications))
            }
            guard fields.count > 1 else { throw .policyLine(path: path, line: line, .patternWithoutLabel) }
            var type: UInt8 = 0
            var label = fields[1]
            if label.first == UInt8(ascii: "-") {
                guard label.count == 2, let code = label.last, "bcdpls-".utf8.contains(code) else {
                    throw .policyLine(path: path, line: line, .unknownFileType(ByteString(label)))
                }
                guard fields.count > 2 else { throw .policyLine(path: path, line: line, .typeWithoutLabel) }
                type = code
                label = fields[2]
            }
            guard fields.count == (type == 0 ? 2 : 3) else {
                throw .policyLine(path: path, line: line, .textAfterLabel(ByteString(label)))
            }
            try add(fields[0], type, number(of: ByteString(label)), path: path, line: line)
        }
    }

    private mutating func add(
        _ pattern: ArraySlice<UInt8>, _ type: UInt8, _ label: Int32, path: ByteString, line: Int
    ) throws(BootTransformError) {
        let shape = PatternShape(pattern)
        var it = Specification(
            stem: shape.stem, rest: shape.rest, type: shape.keepsEnd ? type : 0, label: label, pattern: 0,
            file: Int32(files.count - 1), line: Int32(truncatingIfNeeded: line))
        if shape.rest == .pattern {
            // The subject is the path and one letter for the type, so that `$` and similar operators have the meaning that other tools give
            // them.
            let text = Array("^(".utf8) + pattern + [UInt8(ascii: ")"), type == 0 ? UInt8(ascii: ".") : type, UInt8(ascii: "$")]
            do throws(PatternFault) {
                it.pattern = try patterns.add(text)
            } catch {
                throw .policyLine(path: path, line: line, .pattern(error))
            }
        }
        specifications.append(it)
    }

    private mutating func number(of label: ByteString) -> Int32 {
        if let known = labelNumbers[label] { return known }
        labels.append(label)
        let number = Int32(labels.count - 1)
        labelNumbers[label] = number
        return number
    }

    /// To be called once all files have been added.
    mutating func makeIndex() {
        for index in specifications.indices.reversed() {
            let it = specifications[index]
            switch it.rest {
            case .nothing: exact[ByteString(it.stem), default: []].append(Int32(index))
            case .optionalSubtree:
                exact[ByteString(it.stem), default: []].append(Int32(index))
                append(Int32(index), below: it.stem + [slash])
            case .anything, .pattern:
                append(Int32(index), below: it.stem.lastIndex(of: slash).map { Array(it.stem[...$0]) } ?? [])
            }
        }
    }

    private mutating func append(_ index: Int32, below directory: [UInt8]) {
        let key = ByteString(directory)
        longestDirectory = max(longestDirectory, key.count)
        if let list = directories[key] {
            lists[Int(list)].append(index)
        } else {
            directories[key] = Int32(lists.count)
            lists.append([index])
        }
    }

    // MARK: Lookup

    /// The scope of a path, computed from the root.
    func scope(of path: some Collection<UInt8>) -> Scope {
        var scope = Scope()
        var prefix: [UInt8] = []
        if let list = directories[ByteString()] { scope.lists.append(list) }
        for byte in path {
            prefix.append(byte)
            if byte == slash { enter(prefix, &scope) }
        }
        return scope
    }

    /// Narrows the scope of the parent directory to the directory. The path must end with `/`.
    func enter(_ directory: [UInt8], _ scope: inout Scope) {
        guard directory.count <= longestDirectory, let list = directories[ByteString(directory)] else { return }
        scope.lists.insert(list, at: 0)
    }

    /// The number of the label for a path of the scope; `type` is the letter of its file type.
    func label(of path: [UInt8], type: UInt8, _ scope: Scope) throws(BootTransformError) -> Int32 {
        var best: Int32 = -1
        if let candidates = exact[ByteString(path)] {
            best = candidates.first { fits(specifications[Int($0)], type) } ?? -1
        }
        let subject = path + [type]
        for list in scope.lists {
            for index in lists[Int(list)] {
                if index <= best { break }
                if try matches(specifications[Int(index)], type, subject) {
                    best = index
                    break
                }
            }
        }
        return best < 0 ? Self.noLabel : specifications[Int(best)].label
    }

    private func fits(_ it: Specification, _ type: UInt8) -> Bool { it.type == 0 || it.type == type }

    private func matches(_ it: borrowing Specification, _ type: UInt8, _ subject: [UInt8]) throws(BootTransformError) -> Bool {
        guard it.type == 0 || it.type == type else { return false }
        switch it.rest {
        case .nothing: return false
        // The scope has decided this already.
        case .optionalSubtree: return true
        case .anything: return begins(subject, with: it.stem)
        case .pattern:
            guard begins(subject, with: it.stem) else { return false }
            do throws(PatternFault) {
                return try patterns.matches(it.pattern, subject)
            } catch {
                throw .match(policy: files[Int(it.file)], line: Int(it.line), path: ByteString(Array(subject.dropLast())), error)
            }
        }
    }

    /// Whether the path without its last byte begins with the stem.
    private func begins(_ subject: [UInt8], with stem: [UInt8]) -> Bool {
        guard stem.count < subject.count else { return false }
        return subject.withUnsafeBytes { subject in
            stem.withUnsafeBytes { compareBytes(UnsafeRawBufferPointer(rebasing: subject[..<$0.count]), $0) == 0 }
        }
    }
}

package let slash = UInt8(ascii: "/")

/// Calls `body` with the fields of each line that is neither blank nor a comment, and its number, from 1.
func forEachLine(
    of bytes: [UInt8], _ path: ByteString, _ body: ([ArraySlice<UInt8>], Int) throws(BootTransformError) -> Void
) throws(BootTransformError) {
    var number = 0
    for line in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
        number += 1
        guard let first = line.first(where: { !isASCIISpace($0) }), first != UInt8(ascii: "#") else { continue }
        if line.contains(0) { throw .policyLine(path: path, line: number, .containsNUL) }
        let fields = line.split(maxSplits: 4, whereSeparator: isASCIISpace)
        if fields.contains(where: { $0.count > BootLimits.fieldBytes }) {
            throw .policyLine(path: path, line: number, .fieldTooLong(limit: BootLimits.fieldBytes))
        }
        try body(fields, number)
    }
}
