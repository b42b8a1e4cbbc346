// Clouds that can be turned: orthographic projection, nearer points darker, picks of SortNets as circles.
document.querySelectorAll("canvas.cloud").forEach(function (canvas) {
  var colors = canvas.dataset.colors.split(" ");
  var numbers = canvas.dataset.points.split(" ").map(Number), points = [];
  for (var i = 0; i + 2 < numbers.length; i += 3) points.push([numbers[i] / 1000, numbers[i + 1] / 1000, numbers[i + 2] / 1000]);
  var picks = canvas.dataset.picks ? canvas.dataset.picks.split(";").map(function (net) { return net ? net.split(" ").map(Number) : []; }) : [];
  var pen = canvas.getContext("2d"), turn = 0.6, tilt = 0.45, side = canvas.width;
  function seen(p) {
    var right = Math.cos(turn) * p[0] - Math.sin(turn) * p[1], ahead = Math.sin(turn) * p[0] + Math.cos(turn) * p[1];
    var up = Math.cos(tilt) * p[2] + Math.sin(tilt) * ahead, near = Math.sin(tilt) * p[2] - Math.cos(tilt) * ahead;
    return [side * (0.5 + 0.46 * right), side * (0.5 - 0.46 * up), near];
  }
  function draw() {
    pen.fillStyle = "#ffffff";
    pen.fillRect(0, 0, side, side);
    var places = points.map(seen);
    places.slice().sort(function (a, b) { return a[2] - b[2]; }).forEach(function (p) {
      var grey = Math.round(205 - 165 * (p[2] + 1) / 2);
      pen.fillStyle = "rgb(" + grey + "," + grey + "," + grey + ")";
      pen.fillRect(p[0] - 1, p[1] - 1, 2, 2);
    });
    picks.forEach(function (net, number) {
      pen.strokeStyle = colors[number % colors.length];
      net.forEach(function (index, rank) {
        pen.lineWidth = rank ? 1 : 2.5;
        pen.beginPath();
        pen.arc(places[index][0], places[index][1], rank ? 3 : 6, 0, 7);
        pen.stroke();
      });
    });
  }
  function move(right, up) {
    turn += right;
    tilt = Math.max(-1.57, Math.min(1.57, tilt + up));
    draw();
  }
  canvas.addEventListener("pointerdown", function (event) { canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", function (event) {
    if (event.buttons) move(event.movementX / 80, event.movementY / 80);
  });
  canvas.addEventListener("keydown", function (event) {
    var step = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] }[event.key];
    if (step) { event.preventDefault(); move(step[0], step[1]); }
  });
  draw();
});
