import ComposefsBytes
import ComposefsFileTree
import ComposefsHashing
import Testing

@testable import ComposefsBoot

/// The three-way merge of /etc as a function of trees: dumpfile lines in, an upper directory out.
@Suite struct EtcMergeTests {
    /// `d PATH MODE`, `f PATH CONTENT [MODE] [UID]`, `l PATH TARGET`, `w PATH` (a whiteout), and `x NAME=VALUE` for the line before.
    private static func tree(_ lines: [String]) throws -> FileTree {
        var tree = FileTree(root: Metadata(permissions: 0o755))
        var last = FileTree.root
        for line in lines {
            let words = line.split(separator: " ").map(String.init)
            func number(_ index: Int, _ fallback: Int, radix: Int = 8) -> Int {
                words.count > index ? Int(words[index], radix: radix) ?? fallback : fallback
            }
            if words[0] == "x" {
                let parts = words[1].split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                var metadata = tree.metadata(of: last)
                metadata.setExtendedAttributes(
                    metadata.extendedAttributes + [
                        ExtendedAttribute(name: ByteString(String(parts[0])), value: ByteString(String(parts[1])))
                    ])
                tree.setMetadata(of: last, to: metadata)
                continue
            }
            let names = words[1].split(separator: "/").map { ByteString(String($0)) }
            var at = FileTree.root
            for name in names.dropLast() {
                at = try tree.lookup(name, in: at) ?? tree.addDirectory(name, in: at, Metadata(permissions: 0o755))
            }
            let name = names.last ?? ""
            switch words[0] {
            case "d":
                let metadata = Metadata(permissions: UInt16(number(2, 0o755)))
                if name.isEmpty {
                    tree.setMetadata(of: FileTree.root, to: metadata)
                    last = FileTree.root
                } else {
                    last = try tree.addDirectory(name, in: at, metadata)
                }
            case "l": last = try tree.addLeaf(name, in: at, Metadata(permissions: 0o777), .symbolicLink(ByteString(words[2])))
            case "w": last = try tree.addLeaf(name, in: at, Metadata(permissions: 0), .characterDevice(0))
            default:
                var metadata = Metadata(permissions: UInt16(number(3, 0o644)), uid: UInt32(number(4, 0, radix: 10)))
                metadata.modified = Timestamp(seconds: Int64(words.count))
                last = try tree.addLeaf(name, in: at, metadata, .inline(ByteString(words[2] == "-" ? "" : words[2])))
            }
        }
        return tree
    }

    private static func text(_ tree: FileTree) -> [String] {
        var lines: [String] = []
        func walk(_ directory: FileTree.InodeID, _ path: String) {
            for entry in tree.sortedEntries(of: directory) {
                let (name, inode) = (path + "/" + tree.name(of: entry).description, tree.inode(of: entry))
                let metadata = tree.metadata(of: inode)
                let mode = String(metadata.permissions, radix: 8)
                let attributes = metadata.extendedAttributes.map { "x \($0.name)=\($0.value)" }
                switch tree.content(of: inode) {
                case nil: lines.append("d \(name) \(mode)")
                case .symbolicLink(let target): lines.append("l \(name) \(target)")
                case .characterDevice(0): lines.append("w \(name)")
                case .inline(let bytes): lines.append("f \(name) \(bytes.isEmpty ? "-" : bytes.description) \(mode) \(metadata.uid)")
                default: lines.append("? \(name)")
                }
                lines += attributes
                if tree.isDirectory(inode) { walk(inode, name) }
            }
        }
        walk(FileTree.root, "")
        return lines
    }

    private func merge(_ old: [String], _ new: [String], _ upper: [String], isComplete: Bool = false) throws -> EtcMerge.Result {
        func side(_ lines: [String]) throws -> EtcMerge.Side { EtcMerge.Side(tree: try Self.tree(lines), root: FileTree.root) }
        return try EtcMerge.merge(old: side(old), new: side(new), upper: try Self.tree(upper), isComplete: isComplete)
    }

    struct Case: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var old: [String]
        var new: [String]
        var upper: [String]
        var result: [String]
        var kept: [ByteString] = []
        var removed: [ByteString] = []
        var conflicts: [ByteString] = []

        init(
            _ name: String, old: [String], new: [String], upper: [String], result: [String], kept: [ByteString] = [],
            removed: [ByteString] = [],
            conflicts: [ByteString] = []
        ) {
            (testDescription, self.old, self.new, self.upper, self.result) = (name, old, new, upper, result)
            (self.kept, self.removed, self.conflicts) = (kept, removed, conflicts)
        }
    }

    static let cases: [Case] = [
        Case("nothing changed", old: ["f /a 1"], new: ["f /a 1"], upper: [], result: []),
        Case("changed in the image", old: ["f /a 1"], new: ["f /a 2"], upper: [], result: []),
        Case("copied up, but not changed", old: ["f /a 1"], new: ["f /a 2"], upper: ["f /a 1"], result: []),
        Case("only the time differs", old: ["f /a 1"], new: ["f /a 2"], upper: ["f /a 1 644"], result: []),
        Case("changed locally", old: ["f /a 1"], new: ["f /a 1"], upper: ["f /a mine"], result: ["f /a mine 644 0"], kept: ["/a"]),
        Case("mode", old: ["f /a 1"], new: ["f /a 1"], upper: ["f /a 1 600"], result: ["f /a 1 600 0"], kept: ["/a"]),
        Case("owner", old: ["f /a 1"], new: ["f /a 1"], upper: ["f /a 1 644 7"], result: ["f /a 1 644 7"], kept: ["/a"]),
        Case(
            "extended attribute", old: ["f /a 1"], new: ["f /a 1"], upper: ["f /a 1", "x user.mine=yes"],
            result: ["f /a 1 644 0", "x user.mine=yes"], kept: ["/a"]),
        Case(
            "a label and overlayfs's own attributes are no changes", old: ["f /a 1", "x security.selinux=old"],
            new: ["f /a 2", "x security.selinux=new"], upper: ["f /a 1", "x security.selinux=other", "x trusted.overlay.origin=z"],
            result: []),
        Case(
            "changed in both", old: ["f /a 1"], new: ["f /a 2"], upper: ["f /a mine"], result: ["f /a mine 644 0"], kept: ["/a"],
            conflicts: ["/a"]),
        Case("changed in both to the same", old: ["f /a 1"], new: ["f /a 2"], upper: ["f /a 2"], result: []),
        Case("added locally", old: [], new: [], upper: ["f /a mine"], result: ["f /a mine 644 0"], kept: ["/a"]),
        Case("added in both", old: [], new: ["f /a 2"], upper: ["f /a mine"], result: ["f /a mine 644 0"], kept: ["/a"], conflicts: ["/a"]),
        Case("removed from the image", old: ["f /a 1"], new: [], upper: [], result: []),
        Case(
            "changed locally, removed from the image", old: ["f /a 1"], new: [], upper: ["f /a mine"], result: ["f /a mine 644 0"],
            kept: ["/a"],
            conflicts: ["/a"]),
        Case("removed locally", old: ["f /a 1"], new: ["f /a 1"], upper: ["w /a"], result: ["w /a"], removed: ["/a"]),
        Case(
            "removed locally, changed in the image", old: ["f /a 1"], new: ["f /a 2"], upper: ["w /a"], result: ["w /a"], removed: ["/a"],
            conflicts: ["/a"]),
        Case("removed in both", old: ["f /a 1"], new: [], upper: ["w /a"], result: []),
        Case("a whiteout over nothing", old: [], new: ["f /a 2"], upper: ["w /a"], result: []),
        Case("symbolic links", old: ["l /a x"], new: ["l /a y"], upper: [], result: []),
        Case(
            "a link changed locally", old: ["l /a x", "l /b x"], new: ["l /a x", "l /b z"], upper: ["l /a mine", "l /b x"],
            result: ["l /a mine"], kept: ["/a"]),
        Case(
            "a file became a link locally", old: ["f /a 1"], new: ["f /a 1"], upper: ["l /a target"], result: ["l /a target"], kept: ["/a"]),
        Case(
            "a link became a file in the image", old: ["l /a x"], new: ["f /a 2"], upper: ["l /a mine"], result: ["l /a mine"],
            kept: ["/a"],
            conflicts: ["/a"]),
        Case(
            "within directories", old: ["f /d/a 1", "f /d/b 1"], new: ["f /d/a 2", "f /d/b 1", "f /d/c 3"], upper: ["d /d", "f /d/b mine"],
            result: ["d /d 755", "f /d/b mine 644 0"], kept: ["/d/b"]),
        Case("a directory that was copied up", old: ["f /d/a 1"], new: ["f /d/a 2"], upper: ["d /d"], result: []),
        Case(
            "the mode of a directory", old: ["d /d", "f /d/a 1"], new: ["d /d", "f /d/a 2"], upper: ["d /d 700"], result: ["d /d 700"],
            kept: ["/d"]),
        Case(
            "the mode of a directory in the image", old: ["d /d", "f /d/a 1"], new: ["d /d 750", "f /d/a 1"],
            upper: ["d /d", "f /d/b mine"],
            result: ["d /d 750", "f /d/b mine 644 0"], kept: ["/d/b"]),
        Case(
            "the mode of a directory in both", old: ["d /d"], new: ["d /d 750"], upper: ["d /d 700"], result: ["d /d 700"], kept: ["/d"],
            conflicts: ["/d"]),
        Case("an empty directory added locally", old: [], new: [], upper: ["d /d"], result: ["d /d 755"], kept: ["/d"]),
        Case("a directory removed from the image", old: ["f /d/a 1"], new: [], upper: ["d /d"], result: []),
        Case(
            "a directory removed from the image, with a change", old: ["f /d/a 1", "f /d/b 1"], new: [], upper: ["d /d", "f /d/a mine"],
            result: ["d /d 755", "f /d/a mine 644 0"], kept: ["/d/a"], conflicts: ["/d/a", "/d"]),
        Case("a directory removed locally", old: ["f /d/a 1"], new: ["f /d/a 2"], upper: ["w /d"], result: ["w /d"], removed: ["/d"]),
        Case(
            "a directory replaced locally: only what was removed stays removed", old: ["f /d/a 1", "f /d/b 1"],
            new: ["f /d/a 1", "f /d/b 2", "f /d/c 3"], upper: ["d /d", "x trusted.overlay.opaque=y", "f /d/a mine"],
            result: ["d /d 755", "f /d/a mine 644 0", "w /d/b"], kept: ["/d/a"], removed: ["/d/b"], conflicts: ["/d/b"]),
        Case(
            "a file became a directory locally", old: ["f /a 1"], new: ["f /a 2"], upper: ["d /a", "f /a/x mine"],
            result: ["d /a 755", "f /a/x mine 644 0"], kept: ["/a/x", "/a"], conflicts: ["/a"]),
        Case(
            "a directory became a file locally", old: ["f /a/x 1"], new: ["f /a/x 1"], upper: ["f /a mine"], result: ["f /a mine 644 0"],
            kept: ["/a"]),
        Case(
            "a directory became a file in the image", old: ["f /a/x 1"], new: ["f /a 2"], upper: ["d /a", "f /a/y mine"],
            result: ["d /a 755", "f /a/y mine 644 0"], kept: ["/a/y"], conflicts: ["/a"]),
        Case(
            "a directory became a file in the image, without local changes", old: ["f /a/x 1"], new: ["f /a 2"], upper: ["d /a"], result: []
        ),
        Case(
            "metadata only: the content is that of the old image", old: ["f /a 1"], new: ["f /a 2"],
            upper: ["f /a - 600", "x trusted.overlay.metacopy="], result: ["f /a 1 600 0"], kept: ["/a"], conflicts: ["/a"]),
        Case(
            "a directory that was renamed", old: ["f /a/x 1", "f /a/y 1"], new: ["f /a/x 2"],
            upper: ["d /b", "x trusted.overlay.redirect=a", "f /b/y mine", "w /a"],
            result: ["w /a", "d /b 755", "f /b/x 1 644 0", "f /b/y mine 644 0"], kept: ["/b/x", "/b/y", "/b"], removed: ["/a"]),
        Case(
            "a directory that was moved", old: ["f /a/x 1", "d /c"], new: ["f /a/x 1", "d /c"],
            upper: ["d /c", "d /c/b", "x trusted.overlay.redirect=/a", "w /a"],
            result: ["w /a", "d /c 755", "d /c/b 755", "f /c/b/x 1 644 0"], kept: ["/c/b/x", "/c/b"], removed: ["/a"]),
    ]

    @Test(arguments: cases) func merged(_ it: Case) throws {
        let merged = try merge(it.old, it.new, it.upper)
        #expect(Self.text(merged.tree) == it.result)
        #expect(merged.kept == it.kept && merged.removed == it.removed && merged.conflicts == it.conflicts, "\(merged)")
    }

    /// The result is right as the changes of the next merge, too.
    @Test(arguments: cases) func mergedAgain(_ it: Case) throws {
        let first = try merge(it.old, it.new, it.upper)
        let again = try merge(it.new, it.new, Self.text(first.tree))
        #expect(Self.text(again.tree) == it.result)
    }

    @Test func theDirectoryItself() throws {
        #expect(try merge(["d / 755"], ["d / 700"], ["d / 755"]).tree.permissions(of: FileTree.root) == 0o700)
        #expect(try merge(["d / 755"], ["d / 755"], ["d / 711"]).tree.permissions(of: FileTree.root) == 0o711)
        #expect(
            try merge(["d / 755", "f /a 1"], ["d / 750", "f /a 1"], ["d / 755", "f /a 2"]).tree.permissions(of: FileTree.root) == 0o750)
    }

    /// bootc keeps all of /etc, and not only the changes.
    @Test func wholeCopies() throws {
        let merged = try merge(
            ["f /a 1", "f /b 1", "f /c 1"], ["f /a 2", "f /b 2", "f /c 2", "f /n 2"], ["f /a 1", "f /b mine"], isComplete: true)
        #expect(Self.text(merged.tree) == ["f /b mine 644 0", "w /c"])
        #expect(merged.kept == ["/b"] && merged.removed == ["/c"] && merged.conflicts == ["/b", "/c"])
    }

    @Test func whatCannotBeUnderstood() throws {
        for upper in [
            ["f /a - 600", "x trusted.overlay.metacopy="], ["d /b", "x trusted.overlay.redirect=/missing/x"],
            ["d " + String(repeating: "/d", count: 300)],
        ] {
            #expect(throws: BootError.self) { try merge([], [], upper) }
        }
    }
}
