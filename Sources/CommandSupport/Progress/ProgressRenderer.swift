import ComposefsBytes
import ComposefsOCI

/// One line of the progress display. Its text has no control characters and fits into the window.
package struct ProgressLine: Equatable {
    package enum Emphasis { case plain, faint, warning, strong }

    package var text: String
    package var emphasis = Emphasis.plain
}

/// Renders a pull's state for a window: one line for each layer, and one for the total. Does not use the terminal.
package enum ProgressRenderer {
    /// - Returns: at least one line, at most one fewer than the window has, each narrower than the window: terminals differ in where the
    ///   cursor is after the last column.
    package static func lines(_ state: PullState, width: Int, height: Int, time: Duration) -> [ProgressLine] {
        let width = max(1, width - 1)
        let room = max(1, height - 1)
        var lines = layerLines(state, width: width, room: room - 1, time: time)
        lines.append(ProgressLine(text: fit(totalLine(state, width: width), width), emphasis: .strong))
        return lines
    }

    /// A display of one line of text, for a window of this width.
    package static func oneLine(_ text: String, width: Int) -> [ProgressLine] {
        [ProgressLine(text: fit(text, max(1, width - 1)), emphasis: .strong)]
    }

    // MARK: Layers

    private static func layerLines(_ state: PullState, width: Int, room: Int, time: Duration) -> [ProgressLine] {
        guard room > 0, !state.layers.isEmpty else { return [] }
        if state.layers.count <= room { return state.layers.map { line($0, width: width, time: time) } }
        // If the layers do not fit: those in progress, and the number of the others.
        let active = state.layers.filter(\.isActive)
        let shown = active.prefix(room - 1)
        let finished = state.layers.count { $0.isFinished }
        let parts = [
            (active.count - shown.count, "more running"), (finished, "done"), (state.layers.count { $0.status == .queued }, "queued"),
        ]
        let others = parts.filter { $0.0 > 0 }.map { "\($0.0) \($0.1)" }.joined(separator: ", ")
        return shown.map { line($0, width: width, time: time) } + [ProgressLine(text: fit("layers: " + others, width), emphasis: .faint)]
    }

    private static func line(_ layer: PullState.Layer, width: Int, time: Duration) -> ProgressLine {
        let name = String(layer.name.prefix(width < 24 ? 6 : 12))
        func said(_ text: String, _ emphasis: ProgressLine.Emphasis = .plain) -> ProgressLine {
            ProgressLine(text: fit(name + "  " + text, width), emphasis: emphasis)
        }
        let size = progressBytes(layer.size)
        switch layer.status {
        case .queued: return said("queued, \(size)", .faint)
        case .present: return said("present, \(size)", .faint)
        case .repeated(let first): return said("the same as layer \(first + 1)", .faint)
        case .stored: return said("stored, \(size)", .faint)
        case .verified: return said("verified, \(size)")
        case .waiting: return said("another process reads it", .warning)
        case .retrying(let reason, let until):
            let left = max(0, ((until - time) / .seconds(1)).rounded(.up))
            return said((left > 0 ? "again in \(timeText(left)): " : "trying again: ") + Output.printable(ByteString(reason)), .warning)
        case .running where layer.done >= layer.size && layer.size > 0: return said("unpacking, \(size)")
        case .running:
            let amount = amountText(layer.done, layer.size)
            let percent = percentText(layer.done, layer.size)
            // Name, amount and percentage have columns of their own; the bar takes the rest.
            if let columns = barWidth(width) {
                return said(bar(layer.done, layer.size, columns) + "  " + padded(amount, 17) + "  " + padded(percent, 4))
            }
            if name.count + 2 + 17 + 2 + 4 <= width { return said(padded(amount, 17) + "  " + padded(percent, 4)) }
            return said(percent)
        }
    }

    // MARK: Total

    private static func totalLine(_ state: PullState, width: Int) -> String {
        switch state.stage {
        case .resolving(let reference): return "resolving " + Output.printable(ByteString(reference))
        case .merging: return "merging layers"
        case .writingImage: return "writing the image"
        case .publishing: return "making it durable"
        case .done: return "done"
        case .pulling: break
        }
        let amount = amountText(state.done, state.total)
        let percent = percentText(state.done, state.total)
        let rate = state.rate.bytesPerSecond.map { progressBytes(UInt64(min($0, 1e18))) + "/s" }
        let left = state.secondsLeft.map(timeText)
        func joined(_ parts: [String?]) -> String { parts.compactMap { $0 }.joined(separator: "  ") }
        // The most detailed form that fits. Its columns are those of the layers' lines.
        let columns = joined([padded(amount, 17), padded(percent, 4), rate, left.map { $0 + " left" }])
        let rest = width - 14 - 2 - columns.count
        if let bars = barWidth(width), rest >= 6 {
            return "total         " + bar(state.done, state.total, min(bars, rest)) + "  " + columns
        }
        let choices: [[String?]] = [
            ["total       ", amount, percent, rate, left.map { $0 + " left" }], [amount, percent, rate, left.map { $0 + " left" }],
            [amount, percent, rate, left], [amount, rate, left], [amount, left], [percent, left],
        ]
        return choices.lazy.map(joined).first { $0.count <= width } ?? percent
    }

    // MARK: Parts

    /// The width of bars: what name, amount and percentage leave, and in a wide window also the total's rate and time; nil for no bar.
    private static func barWidth(_ width: Int) -> Int? {
        let besides = 12 + 2 + 2 + 17 + 2 + 4
        let wide = width - besides - 25
        if wide >= 12 { return min(wide, 42) }
        return width - besides >= 6 ? width - besides : nil
    }

    private static func bar(_ done: UInt64, _ total: UInt64, _ width: Int) -> String {
        let inside = max(0, width - 2)
        let filled = total == 0 ? inside : min(inside, Int(Double(min(done, total)) / Double(total) * Double(inside)))
        return "[" + String(repeating: "#", count: filled) + String(repeating: " ", count: inside - filled) + "]"
    }

    /// Both sizes in the unit of the second.
    private static func amountText(_ done: UInt64, _ total: UInt64) -> String {
        byteText(min(done, total), decimals: 1, unitOf: total, withUnit: false) + "/" + progressBytes(total)
    }

    private static func percentText(_ done: UInt64, _ total: UInt64) -> String {
        // Rounded down: 100 % means complete.
        total == 0 ? "100%" : "\(Int(Double(min(done, total)) / Double(total) * 100))%"
    }

    private static func padded(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
    }

    /// The beginning of a text that takes at most this many columns. A character that is not known to be one column wide counts as two.
    package static func fit(_ text: String, _ width: Int) -> String {
        var used = 0
        var result = ""
        for scalar in text.unicodeScalars {
            used += scalar.value < 0x1100 ? 1 : 2
            if used > width { break }
            result.unicodeScalars.append(scalar)
        }
        return result
    }

    /// A duration for people: `8s`, `3m 20s`, `2h 5m`.
    package static func timeText(_ seconds: Double) -> String {
        guard seconds.isFinite, seconds < 360_000 else { return "over 99h" }
        let whole = Int(max(0, seconds).rounded(.up))
        if whole < 60 { return "\(whole)s" }
        if whole < 3600 { return "\(whole / 60)m \(whole % 60)s" }
        return "\(whole / 3600)h \(whole / 60 % 60)m"
    }
}
