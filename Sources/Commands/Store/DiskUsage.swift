import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsLinuxSystem
import ComposefsOCI

struct DiskUsage: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "df", abstract: "Show what the repository and each image cost.",
        discussion: """
            An image's size is that of all objects that it needs, each counted once: ALONE are those that no other image needs, SHARED the \
            others, and FREES is what prune would remove after the image's names. Sizes are what the file system has allocated, as du(1) \
            counts; JSON has the lengths of the files, too. The line "snapshots" has what only snapshots of disks need. Extents that objects share with files elsewhere (reflink) are counted in full.

            On a terminal, a bar shows each image's part of all objects: # alone, = shared.
            """,
        aliases: ["du"])

    @Flag(help: "Print JSON.")
    var json = false

    @OptionGroup var global: GlobalOptions

    func run() throws {
        let store = try global.openStore(Self.rights, readOnly: true)
        let usage = try store.usage()
        for fault in usage.unreadable { global.warn("\(Output.printable(fault.name)) is not accounted for: \(fault.reason)") }
        if let fault = usage.garbageFault { global.warn("gc would be refused: \(fault)") }
        let columns = Output.outputIsTerminal ? Terminal.size(of: .output)?.columns ?? 80 : nil
        let snapshots = try SnapshotStore(store.images).space()
        try UsageReport(path: store.repository.path, usage: usage, snapshots: snapshots, columns: columns).show(asJSON: json)
    }
}

struct UsageReport: CommandReport {
    var path: ByteString
    var usage: StoreUsage
    /// What only snapshots keep; the count is that of their names.
    var snapshots = SpaceUse()
    /// The width of the terminal; nil if there is none.
    var columns: Int?

    /// The least width of a bar that shows anything.
    private static let shortestBar = 10

    var lines: [String] {
        let costs = usage.costs.sorted { ($0.total.diskBytes, $1.names.first ?? "") > ($1.total.diskBytes, $0.names.first ?? "") }
        let titles = ["IMAGE", "ON DISK", "ALONE", "SHARED", "FREES"]
        let rows = costs.map { cost in
            [Self.name(of: cost)]
                + [cost.total, cost.exclusive, cost.shared].map { humanBytes($0.diskBytes) }
                + [cost.reclaimable.map { humanBytes($0.diskBytes) } ?? "?"]
        }
        let widths = titles.indices.map { column in (rows + [titles]).map { $0[column].count }.max() ?? 0 }
        let width = widths.reduce(0, +) + 2 * (titles.count - 1)
        if let columns, width > columns || totals.contains(where: { $0.line.count > columns }) { return narrow(costs, columns) }
        var lines: [String] = []
        if !rows.isEmpty {
            let bar = columns.map { $0 - width - 2 } ?? 0
            let all = bar < Self.shortestBar ? rows : zip(rows, costs).map { $0 + [self.bar($1, bar)] }
            lines = table(titles + (bar < Self.shortestBar ? [] : [""]), all).split(separator: "\n").map { line in
                String(line.reversed().drop { $0 == " " }.reversed())
            }
            lines.append("")
        }
        return lines + totals.map(\.line)
    }

    /// Every value in a line of its own, none longer than the terminal is wide.
    private func narrow(_ costs: [ImageUsage], _ columns: Int) -> [String] {
        var lines: [String] = []
        for cost in costs {
            lines.append(Self.name(of: cost))
            if columns >= Self.shortestBar { lines.append(bar(cost, columns)) }
            lines += [
                " disk   \(humanBytes(cost.total.diskBytes))", " alone  \(humanBytes(cost.exclusive.diskBytes))",
                " shared \(humanBytes(cost.shared.diskBytes))", " frees  \(cost.reclaimable.map { humanBytes($0.diskBytes) } ?? "?")",
            ]
        }
        for total in totals { lines += [total.name, " " + total.count, " " + total.space] }
        return lines.map { $0.count > columns ? String($0.prefix(max(0, columns - 1))) + "…" : $0 }
    }

    private struct Total {
        var name: String
        var count: String
        var space: String
        var line: String { name + String(repeating: " ", count: max(1, 13 - name.count)) + count + ", " + space }
    }

    private var totals: [Total] {
        var totals = [("objects", usage.objects), ("streams", usage.streams), ("images", usage.images), ("temporaries", usage.temporaries)]
            .map { Total(name: $0, count: "\($1.count)", space: humanBytes($1.diskBytes)) }
        if usage.disks.count > 0 {
            totals.insert(Total(name: "disks", count: "\(usage.disks.count)", space: humanBytes(usage.disks.diskBytes)), at: 3)
        }
        if snapshots.count > 0 {
            let index = totals.count - 1
            totals.insert(Total(name: "snapshots", count: "\(snapshots.count)", space: humanBytes(snapshots.diskBytes)), at: index)
        }
        totals.append(Total(name: "set aside", count: "\(usage.damaged.count)", space: humanBytes(usage.damaged.diskBytes)))
        if usage.garbage != nil {
            let garbage = usage.garbageObjects
            totals.append(Total(name: "gc frees", count: "\(garbage.count)", space: humanBytes(garbage.diskBytes)))
        }
        return totals
    }

    private static func name(of cost: ImageUsage) -> String {
        if !cost.names.isEmpty { return cost.names.map(Output.printable).joined(separator: ", ") }
        return "<none> " + (cost.manifestDigest?.hex ?? cost.imageIDs.first?.hex ?? "").prefix(12)
    }

    /// An image's part of all objects, in this many columns.
    private func bar(_ cost: ImageUsage, _ width: Int) -> String {
        let inside = width - 2
        func part(_ bytes: UInt64) -> Int {
            guard usage.objects.diskBytes > 0 else { return 0 }
            return min(inside, Int((Double(inside) * Double(bytes) / Double(usage.objects.diskBytes)).rounded()))
        }
        let all = part(cost.total.diskBytes)
        let alone = min(all, part(cost.exclusive.diskBytes))
        return "[" + String(repeating: "#", count: alone) + String(repeating: "=", count: all - alone)
            + String(repeating: " ", count: inside - all) + "]"
    }

    var json: JSONValue {
        [
            "path": .string(path.jsonText), "objects": usage.objects.json, "streams": usage.streams.json, "images": usage.images.json,
            "disks": usage.disks.json, "snapshots": snapshots.json, "temporaries": usage.temporaries.json, "damaged": usage.damaged.json,
            "reclaimable": usage.garbage.map { garbage in
                [
                    "objects": .count(garbage.objectsRemoved), "bytes": JSONValue(garbage.bytesRemoved),
                    "diskBytes": JSONValue(usage.garbageObjects.diskBytes), "streams": .count(garbage.streamsRemoved),
                    "images": .count(garbage.imagesRemoved), "temporaries": .count(garbage.temporariesRemoved),
                ]
            } ?? .null,
            "costs": .array(usage.costs.map(Self.document)),
        ]
    }

    private static func document(_ cost: ImageUsage) -> JSONValue {
        [
            "names": .array(cost.names.map { .string($0.jsonText) }), "manifestDigest": .text(cost.manifestDigest),
            "imageIds": .array(cost.imageIDs.map { .string($0.hex) }), "inUse": .array(cost.uses.map(\.json)), "total": cost.total.json,
            "exclusive": cost.exclusive.json, "shared": cost.shared.json, "reclaimable": cost.reclaimable.map(\.json) ?? .null,
        ]
    }
}

extension SpaceUse {
    var json: JSONValue { ["count": .count(count), "bytes": JSONValue(bytes), "diskBytes": JSONValue(diskBytes)] }
}
