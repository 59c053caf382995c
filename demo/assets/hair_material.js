// Materials of hair: tinted grey textures, normals of the whole volume, and the highlights of strands.
// Reference: Kajiya and Kay, 1989; the shifted highlights of Marschner et al., 2003, as approximated by Scheuermann, 2004.

import { CLAY, SHOULDER } from "./material.js";

const SOLID = 0.6; // alpha of a strand that hides what is behind it
const STRENGTH = { hair: 1, scalp: 0.35 };

// Numbers as in faceverse/rendering/hair.py.
const STRANDS = `
float strandHighlight(vec3 strand, vec3 normal, vec3 halfway, float shift, float sharpness) {
  float along = dot(normalize(strand + shift * normal), halfway);
  return pow(max(1.0 - along * along, 0.0), 0.5 * sharpness);
}
vec3 hairShine(vec3 normal, vec3 strand, vec3 view, vec3 albedo, float outside) {
  vec3 lamp = directionalLights[0].direction, halfway = normalize(view + lamp);
  float mean = dot(hairTint, vec3(0.2126, 0.7152, 0.0722)) * 0.25;
  float shift = 0.12 * clamp(dot(albedo, vec3(0.2126, 0.7152, 0.0722)) / max(mean, 1e-4) - 1.0, -1.0, 1.0);
  float white = 0.035 * strandHighlight(strand, normal, halfway, 0.10 + shift, 60.0);
  float through = 0.35 * strandHighlight(strand, normal, halfway, -0.16 + shift, 14.0);
  float lit = smoothstep(-0.3, 0.7, dot(lamp, normal));
  return 1.2 * directionalLights[0].color * (white + through * albedo) * lit * outside;
}`;

// Cards of hair are lit as the volume that they fill, so normals stay whatever side of a card is seen.
const NORMAL = "float faceDirection = 1.0; vec3 normal = normalize(vNormal); vec3 geometryNormal = normal;";

// `pass`: "solid" for what hides other hair, "edges" for the soft edges over it, "cap" for the short hairs of the scalp.
export function hairMaterial(slot, pack, texture, viewMode, pass) {
  const isSolid = pass === "solid";
  const material = new THREE.MeshStandardMaterial({
    metalness: 0, roughness: 1, map: texture, side: THREE.DoubleSide, transparent: !isSolid, depthWrite: isSolid,
    alphaTest: isSolid ? SOLID : 0.004,
  });
  const own = { viewMode, hairTint: { value: new THREE.Vector3(1, 1, 1) } };
  material.userData.tint = own.hairTint.value;
  material.userData.toHead = new THREE.Matrix4();
  material.customProgramCacheKey = () => `hair ${slot} ${isSolid}`;
  material.onBeforeCompile = (shader) => {
    Object.assign(shader.uniforms, own);
    shader.vertexShader = shader.vertexShader
      .replace("#include <common>", `#include <common>
        attribute vec3 strand;
        attribute float hairLight;
        varying vec3 vStrand;
        varying float vLight;`)
      .replace("#include <begin_vertex>", `#include <begin_vertex>
        vStrand = normalMatrix * strand;
        vLight = hairLight;`);
    shader.fragmentShader = shader.fragmentShader
      .replace("#include <common>", `#include <common>
        uniform int viewMode;
        uniform vec3 hairTint;
        varying vec3 vStrand;
        varying float vLight;`)
      .replace("#include <lights_physical_pars_fragment>", `#include <lights_physical_pars_fragment>\n${STRANDS}`)
      .replace("#include <map_fragment>", `#include <map_fragment>
        diffuseColor.rgb = min(diffuseColor.rgb * hairTint, vec3(1.0));`)
      .replace("#include <color_fragment>", CLAY)
      .replace("#include <normal_fragment_begin>", NORMAL)
      .replace("#include <lights_physical_fragment>", `#include <lights_physical_fragment>
        material.specularColor = vec3(0.0);`)
      .replace("#include <tonemapping_fragment>", `
        vec3 toViewer = normalize(vViewPosition);
        float outside = smoothstep(-0.35, 0.10, dot(normal, toViewer));
        gl_FragColor.rgb *= (0.45 + 0.55 * outside) * vLight;
        if (viewMode == 0) gl_FragColor.rgb += ${STRENGTH[slot].toFixed(2)} * vLight
          * hairShine(normal, normalize(vStrand), toViewer, diffuseColor.rgb, outside);
        ${SHOULDER}`)
      .replace("#include <dithering_fragment>", `#include <dithering_fragment>
        if (viewMode == 2) gl_FragColor = vec4(0.5 * normal + 0.5, gl_FragColor.a);`);
  };
  return material;
}
