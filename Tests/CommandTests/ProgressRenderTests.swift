import ComposefsHashing
import ComposefsOCI
import Testing

@testable import ComposefsCommandSupport
@testable import ComposefsCommands

/// Renders the progress display without a terminal.
struct ProgressRenderTests {
    private static let digests = (0..<40).map { ContentDigest.of(Array("layer \($0)".utf8)) }
    private static let mebibyte: UInt64 = 1 << 20

    private static func resolved(_ sizes: [UInt64]) -> PullState {
        var state = PullState(.resolving("docker.io/library/alpine:latest"))
        let layers = zip(digests, sizes).map { Descriptor(mediaType: "application/vnd.oci.image.layer.v1.tar", digest: $0, size: $1) }
        state.apply(PullEvent(.image, .resolved(.init(manifest: digests[0], layers: layers))), at: .zero)
        return state
    }

    private static func event(_ index: Int, _ phase: PullEvent.Phase, _ done: UInt64 = 0) -> PullEvent {
        PullEvent(.layer(index: index, digest: digests[index]), phase, bytesDone: done)
    }

    /// Every kind of line, and a steady 2 MiB/s for ten seconds.
    private static func busy() -> PullState {
        let sizes = [3, 20, 30, 40, 50, 0, 7, 8].map { $0 * mebibyte }
        var state = resolved(sizes)
        let skipped = event(0, .skipped(.present), sizes[0])
        for event in [skipped, event(6, .skipped(.repeated(of: 1)), sizes[6])] + (1...5).map({ event($0, .queued) }) + [event(7, .queued)] {
            state.apply(event, at: .zero)
        }
        for index in 1...4 { state.apply(event(index, .started), at: .zero) }
        state.rate.sample(at: .zero)
        for tick in 1...100 {
            let time = Duration.milliseconds(100 * tick)
            let done = UInt64(tick) * mebibyte / 10
            for index in 1...2 { state.apply(event(index, .bytes, done), at: time) }
            state.rate.sample(at: time)
        }
        let end = Duration.seconds(10)
        state.apply(event(3, .retrying(reason: "connection reset by peer\u{1b}[2J", delay: .seconds(5)), 0), at: end)
        state.apply(event(4, .waiting), at: end)
        state.apply(event(7, .stored, sizes[7]), at: end)
        return state
    }

    private static func text(_ state: PullState, _ width: Int, _ height: Int, _ time: Duration = .seconds(10)) -> [String] {
        ProgressRenderer.lines(state, width: width, height: height, time: time).map(\.text)
    }

    /// The digest prefixes of the layers.
    private static func names(_ count: Int = 12) -> [String] { digests.map { String($0.hex.prefix(count)) } }

    @Test func wide() {
        let n = Self.names()
        #expect(
            Self.text(Self.busy(), 200, 50) == [
                "\(n[0])  present, 3.0 MiB",
                "\(n[1])  [####################                    ]      10.0/20.0 MiB   50%",
                "\(n[2])  [#############                           ]      10.0/30.0 MiB   33%",
                #"\#(n[3])  again in 5s: connection reset by peer\x1b[2J"#,
                "\(n[4])  another process reads it",
                "\(n[5])  queued, 0 B",
                "\(n[6])  the same as layer 2",
                "\(n[7])  stored, 8.0 MiB",
                "total         [#########                               ]     38.0/158.0 MiB   24%  2.0 MiB/s  1m 0s left",
            ])
    }

    @Test func ordinary() {
        let n = Self.names()
        #expect(
            Self.text(Self.busy(), 80, 24) == [
                "\(n[0])  present, 3.0 MiB",
                "\(n[1])  [######       ]      10.0/20.0 MiB   50%",
                "\(n[2])  [####         ]      10.0/30.0 MiB   33%",
                #"\#(n[3])  again in 5s: connection reset by peer\x1b[2J"#,
                "\(n[4])  another process reads it",
                "\(n[5])  queued, 0 B",
                "\(n[6])  the same as layer 2",
                "\(n[7])  stored, 8.0 MiB",
                "total         [###          ]     38.0/158.0 MiB   24%  2.0 MiB/s  1m 0s left",
            ])
    }

    @Test func narrow() {
        let n = Self.names()
        #expect(
            Self.text(Self.busy(), 40, 24, .seconds(13)) == [
                "\(n[0])  present, 3.0 MiB",
                "\(n[1])      10.0/20.0 MiB   50%",
                "\(n[2])      10.0/30.0 MiB   33%",
                "\(n[3])  again in 2s: connection r",
                "\(n[4])  another process reads it",
                "\(n[5])  queued, 0 B",
                "\(n[6])  the same as layer 2",
                "\(n[7])  stored, 8.0 MiB",
                "38.0/158.0 MiB  24%  2.0 MiB/s  1m 0s",
            ])
    }

    @Test func emphasis() {
        let lines = ProgressRenderer.lines(Self.busy(), width: 80, height: 24, time: .seconds(10))
        #expect(lines.map(\.emphasis) == [.faint, .plain, .plain, .warning, .warning, .faint, .faint, .faint, .strong])
    }

    /// In windows of every size: no line is too wide, there are not too many lines, and no control characters.
    @Test func everyWindow() {
        var states = [Self.busy(), Self.resolved([]), Self.resolved(Array(repeating: .max, count: 40)), PullState(.resolving(""))]
        for stage in [PullState.Stage.merging, .writingImage, .publishing, .done, .resolving("oci:/\u{1b}c目录\u{301}\u{202e}/a b")] {
            states.append(Self.busy())
            states[states.count - 1].stage = stage
        }
        for state in states {
            for width in 1...120 {
                for height in 1...14 {
                    let lines = ProgressRenderer.lines(state, width: width, height: height, time: .seconds(10))
                    #expect((1...max(1, height - 1)).contains(lines.count))
                    for line in lines {
                        let columns = line.text.unicodeScalars.reduce(0) { $0 + ($1.value < 0x1100 ? 1 : 2) }
                        #expect(columns <= max(1, width - 1), "\(width) by \(height): \(line.text)")
                        #expect(!line.text.unicodeScalars.contains { $0.value < 0x20 || (0x7f..<0xa0).contains($0.value) })
                    }
                }
            }
        }
    }

    @Test func moreLayersThanLines() {
        var state = Self.resolved(Array(repeating: Self.mebibyte, count: 40))
        for index in 0..<40 { state.apply(Self.event(index, .queued), at: .zero) }
        for index in 30..<38 { state.apply(Self.event(index, .started), at: .zero) }
        for index in 38..<40 { state.apply(Self.event(index, .stored, Self.mebibyte), at: .zero) }
        let n = Self.names()
        let lines = Self.text(state, 80, 8)
        #expect(lines.map { $0.prefix(12) } == n[30..<35].map { $0.prefix(12) } + ["layers: 3 mo", "total       "])
        #expect(lines[5] == "layers: 3 more running, 2 done, 30 queued")
        #expect(Self.text(state, 80, 3)[0] == "layers: 8 more running, 2 done, 30 queued")
        #expect(Self.text(state, 80, 2).count == 1)
        #expect(Self.text(state, 80, 42).count == 41)
        #expect(Self.text(state, 80, 41).count == 10)
    }

    /// Stored content counts as done from the start, and the total never changes.
    @Test func totals() {
        var state = Self.resolved([100, 200, 300])
        #expect(state.total == 600 && state.done == 0)
        state.apply(Self.event(1, .skipped(.present), 200), at: .zero)
        #expect(state.total == 600 && state.done == 200)
        state.apply(Self.event(2, .resumed(from: 150), 150), at: .zero)
        #expect(state.done == 350)
        state.apply(Self.event(2, .bytes, 250), at: .zero)
        #expect(state.done == 450)
        // More bytes than announced count as all bytes.
        state.apply(Self.event(0, .bytes, 10_000), at: .zero)
        #expect(state.done == 550 && state.total == 600)
        state.apply(Self.event(9, .bytes, 5), at: .zero)
        #expect(state.done == 550)
    }

    @Test func rateIsSmoothed() throws {
        var meter = RateMeter()
        var time = Duration.zero
        func run(_ perTick: UInt64, _ ticks: Int) {
            for _ in 0..<ticks {
                time += .milliseconds(100)
                meter.add(perTick)
                meter.sample(at: time)
            }
        }
        meter.sample(at: time)
        #expect(meter.bytesPerSecond == nil)
        run(100_000, 2)
        #expect(meter.bytesPerSecond == nil)
        run(100_000, 3)
        // A steady transfer shows its rate at once.
        #expect(abs(try #require(meter.bytesPerSecond) - 1_000_000) < 1000)
        run(0, 1)
        // A short pause has little influence, a long one much.
        #expect(try #require(meter.bytesPerSecond) > 800_000)
        run(0, 200)
        #expect(try #require(meter.bytesPerSecond) < 10_000)
        run(100_000, 200)
        #expect(abs(try #require(meter.bytesPerSecond) - 1_000_000) < 10_000)
    }

    /// Bytes from an earlier pull do not count towards the rate.
    @Test func resumedBytesAreNoRate() {
        var state = Self.resolved([1 << 30])
        state.rate.sample(at: .zero)
        state.apply(Self.event(0, .resumed(from: 1 << 29), 1 << 29), at: .zero)
        for tick in 1...20 { state.rate.sample(at: .milliseconds(100 * tick)) }
        #expect(state.rate.bytesPerSecond == 0)
        #expect(state.secondsLeft == nil)
    }

    @Test func numbers() {
        #expect(progressBytes(0) == "0 B" && progressBytes(1023) == "1023 B" && progressBytes(1024) == "1.0 KiB")
        #expect(progressBytes(1_048_575) == "1.0 MiB" && progressBytes(1_048_000) == "1023.4 KiB")
        #expect(progressBytes(.max) == "16.0 EiB")
        #expect(ProgressRenderer.timeText(0.2) == "1s" && ProgressRenderer.timeText(59.5) == "1m 0s")
        #expect(ProgressRenderer.timeText(3600) == "1h 0m" && ProgressRenderer.timeText(.infinity) == "over 99h")
        #expect(ProgressRenderer.timeText(-1) == "0s" && ProgressRenderer.timeText(.nan) == "over 99h")
        #expect(ProgressRenderer.fit("日本語", 5) == "日本" && ProgressRenderer.fit("abc", 2) == "ab" && ProgressRenderer.fit("é", 0) == "")
    }

    /// Every event has a JSON line with the documented keys.
    @Test func eventsAsJSON() throws {
        let digest = Self.digests[1]
        func line(_ phase: PullEvent.Phase, done: UInt64 = 5) -> String {
            PullEvent(.layer(index: 1, digest: digest), phase, bytesDone: done, bytesTotal: 10).json.description
        }
        let tail = #""layer":1,"digest":"\#(digest)","bytesDone":5,"bytesTotal":10}"#
        #expect(line(.queued) == #"{"event":"layerQueued",\#(tail)"#)
        #expect(line(.started) == #"{"event":"layerStarted",\#(tail)"#)
        #expect(line(.bytes) == #"{"event":"layerProgress","received":5,\#(tail)"#)
        #expect(line(.verified) == #"{"event":"layerVerified",\#(tail)"#)
        #expect(line(.stored) == #"{"event":"layerStored",\#(tail)"#)
        #expect(line(.waiting) == #"{"event":"layerWaiting",\#(tail)"#)
        #expect(line(.skipped(.present)) == #"{"event":"layerPresent",\#(tail)"#)
        #expect(line(.skipped(.repeated(of: 0))) == #"{"event":"layerPresent","sameAs":0,\#(tail)"#)
        let retry = line(.retrying(reason: "a \"b\"\n\u{1b}", delay: .milliseconds(1500)))
        #expect(retry == #"{"event":"layerRetrying","reason":"a \"b\"\n\u001b","delay":1.5,\#(tail)"#)
        #expect(line(.resumed(from: 5)) == #"{"event":"layerResumed","from":5,\#(tail)"#)
        #expect(
            PullEvent(.image, .resolving(reference: "x")).json.description
                == #"{"event":"resolving","reference":"x","bytesDone":0,"bytesTotal":0}"#)
    }

    @Test func eventsAsLines() {
        func line(_ phase: PullEvent.Phase) -> String? { Self.event(1, phase).line?.replacing(Self.digests[1].description, with: "D") }
        #expect(line(.queued) == nil && line(.started) == nil && line(.bytes) == nil && line(.verified) == nil)
        #expect(line(.stored) == "layer 2 D: stored" && line(.skipped(.present)) == "layer 2 D: present")
        #expect(line(.skipped(.repeated(of: 0))) == "layer 2 D: the same as layer 1")
        #expect(line(.retrying(reason: "a\u{1b}[1mb", delay: .seconds(90))) == #"layer 2 D: trying again in 1m 30s: a\x1b[1mb"#)
        #expect(line(.resumed(from: 1536)) == "layer 2 D: continues at 1.50 KiB")
        #expect(PullEvent(.image, .resolving(reference: "a\rb")).line == #"resolving a\x0db"#)
    }
}
