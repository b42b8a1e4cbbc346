// A photograph from the camera, or a sentence about why there is none and the way round it.
import { $, canvasOf } from "./dom.js";
import { t } from "./strings.js";

// Resolves to a JPEG blob, null if it was closed, or "file" if a file shall be chosen instead.
export function photograph() {
  const dialog = $("camera"), video = $("camera-view"), note = $("camera-note"), take = $("camera-take");
  let stream = null;
  note.textContent = t("camera.wait");
  video.hidden = take.hidden = true;
  dialog.showModal();
  return new Promise((resolve) => {
    let closed = false;
    const finish = (answer) => {
      closed = true;
      stream?.getTracks().forEach((track) => track.stop());
      video.srcObject = null;
      if (dialog.open) dialog.close();
      resolve(answer);
    };
    dialog.onclose = () => finish(null);
    $("camera-close").onclick = () => finish(null);
    $("camera-file").onclick = () => finish("file");
    take.onclick = () => {
      const canvas = canvasOf(video.videoWidth, video.videoHeight);
      canvas.getContext("2d").drawImage(video, 0, 0);
      canvas.toBlob(finish, "image/jpeg", 0.92);
    };
    start().then(async (found) => {
      stream = found;
      if (closed) return finish(null);
      video.srcObject = stream;
      await video.play();
      note.textContent = "";
      video.hidden = take.hidden = false;
      take.focus();
    }).catch((error) => { note.textContent = t(reason(error)); });
  });
}

async function start() {
  if (!navigator.mediaDevices?.getUserMedia) throw new Error("insecure");
  return navigator.mediaDevices.getUserMedia({ video: { facingMode: { ideal: "environment" }, width: { ideal: 1280 } }, audio: false });
}

function reason(error) {
  if (error.message === "insecure") return "camera.insecure";
  return error.name === "NotAllowedError" ? "camera.denied" : "camera.missing";
}
